"""How far a packing's answers are from those of the most exact packing, on known inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..blob.format import Blob
from .pack import Options, pack_checkpoint

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

MOST = 256  # windows or tokens


@dataclass(frozen=True)
class Agreement:
    """Of `count` windows (or tokens) `same` have the same likeliest output; `difference` is the
    largest between two logits, `largest` the largest logit; `exact` says what was compared with."""

    data: str
    count: int
    same: int
    difference: float
    largest: float


def agreement(blob: Blob, checkpoint: Checkpoint, options: Options) -> Agreement | None:
    """Compares a blob with the same model packed in floats wherever that can be (rows, keys and
    values, weights of F32), both run on this computer; None where the model's training data are not
    at hand."""
    inputs = reference_inputs(checkpoint)
    if inputs is None:
        return None
    best = replace(options, kv="float", integer_rows=False, float_dtype="f32")
    best = replace(best, adapt=False, arena_limit=None)
    ours, theirs = (_logits(b, inputs) for b in (blob, pack_checkpoint(checkpoint, best)))
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    difference, largest = float(np.abs(ours - theirs).max()), float(np.abs(theirs).max())
    return Agreement(checkpoint.report["data"], len(ours), same, difference, largest)


def reference_inputs(checkpoint: Checkpoint) -> np.ndarray | None:
    """Test windows int16 [n, length, channels], or tokens, that come with ternio; None where the
    model was trained on something else."""
    from .. import data

    source = checkpoint.report.get("data")
    if checkpoint.kind == "lm":
        corpus = data.load_corpus(data.REFERENCE_TEXT, 2, checkpoint.vocabulary)
        return corpus.validation[:MOST] if source == corpus.name else None
    test = data.basic_motions()[1]
    shape = (checkpoint.inputs.length, len(checkpoint.inputs.channels))
    if source != test.name or test.x.shape[1:] != shape:
        return None
    return checkpoint.inputs.quantize(test.x[:MOST])


def _logits(blob: Blob, inputs: np.ndarray) -> np.ndarray:
    """Logits [n, outputs] by the runtime; of a stream of tokens, which starts again when full."""
    from ..runtime import Model, Session

    session = Session(Model.open(blob.encode()))
    if not blob.io.is_stream:
        return np.array([session.infer(x) for x in inputs])
    rows = []
    for token in inputs:
        if session.position == blob.io.length:
            session.reset_stream()
        rows.append(session.step(int(token)))
    return np.array(rows)
