"""Which examples make a batch: each once a pass, in an order drawn anew for every pass.

What the next batch depends on, besides the generator, stands in `state`, so that a training can go
on from a file.
"""

from __future__ import annotations

import numpy as np


class Batches:
    """Indices of examples; less than half a batch at the end of a pass is left out.

    Args:
        count: examples.
        batch: of them at a time.

    Attributes:
        state: the order of the pass, and the next place in it.
    """

    def __init__(self, count: int, batch: int) -> None:
        self.batch = min(batch, count)
        self.state = {"order": np.arange(count), "place": np.array([count])}

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The next batch."""
        order, place = self.state["order"], self.state["place"]
        left = len(order) - int(place[0])
        if left <= 0 or 2 * left < self.batch:
            self.shuffle(rng)
        start = int(place[0])
        place[0] += self.batch
        return order[start : start + self.batch].copy()

    def shuffle(self, rng: np.random.Generator) -> None:
        """Begins a pass."""
        order = self.state["order"]
        order[...] = rng.permutation(len(order))
        self.state["place"][0] = 0


class TextWindows(Batches):
    """Places of windows in a text that do not overlap within a pass; each pass cuts it elsewhere.

    So every token is seen equally often, which windows at random places would leave to chance.

    Args:
        tokens: length of the text, more than `context`.
        context: tokens per window; one more follows it.
        batch: windows at a time.

    Attributes:
        state: also the offset of the first window.
    """

    def __init__(self, tokens: int, context: int, batch: int) -> None:
        self.context = context
        self.spare = (tokens - 1) % context
        count = (tokens - 1) // context
        if count > 1:
            count, self.spare = count - 1, self.spare + context
        super().__init__(count, batch)
        self.state["offset"] = np.array([0])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Places of the first tokens of the next windows."""
        chosen = super().draw(rng)
        return self.state["offset"][0] + chosen * self.context

    def shuffle(self, rng: np.random.Generator) -> None:
        """Begins a pass."""
        self.state["offset"][0] = rng.integers(0, min(self.spare, self.context - 1) + 1)
        super().shuffle(rng)
