"""Where a training stands: all that the next step depends on besides model, data and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ModelError


@dataclass
class TrainState:
    """The state after a step.

    Attributes:
        optimizer: moments and count of steps.
        generator: NumPy's, of batches and augmentation.
        engine_generator: uint64 [4], the engine's.
        order: of the examples in the pass that is under way, by name.
        loss: of every step so far.
        validation: (step, loss) so far.
        skipped: updates left out so far.
        loss_scale: its value, and the steps since it changed.
        best_step: of the best validation.
        parameters: where training stands, when the model is the one that validated best.
        data: digest of the data it was trained on.
    """

    optimizer: dict[str, np.ndarray]
    generator: dict[str, Any]
    engine_generator: np.ndarray
    order: dict[str, np.ndarray] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    skipped: int = 0
    loss_scale: tuple[float, int] = (1.0, 0)
    best_step: int = 0
    parameters: dict[str, np.ndarray] | None = None
    data: str = ""

    def to_file(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Plain values for JSON, and arrays by name."""
        about = {
            "generator": self.generator,
            "skipped": self.skipped,
            "loss_scale": list(self.loss_scale),
            "best_step": self.best_step,
            "data": self.data,
            "has_parameters": self.parameters is not None,
        }
        arrays = {
            "engine_generator": self.engine_generator,
            "loss": np.array(self.loss, dtype=np.float64),
            "validation": np.array(self.validation, dtype=np.float64).reshape(-1, 2),
        }
        groups = {"optimizer": self.optimizer, "order": self.order}
        groups["parameters"] = self.parameters or {}
        for group, values in groups.items():
            arrays |= {f"{group}/{name}": value for name, value in values.items()}
        return about, arrays

    @classmethod
    def from_file(cls, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> TrainState:
        """The reverse of to_file; ModelError for what is missing or impossible."""

        def group(name: str) -> dict[str, np.ndarray]:
            start = name + "/"
            return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}

        try:
            value, good = about["loss_scale"]
            steps = [int(step) for step, _ in arrays["validation"]]
            if about["has_parameters"] and about["best_step"] not in steps:
                raise ModelError("training state: there was no validation at the best step")
            generator = np.asarray(arrays["engine_generator"])
            if generator.shape != (4,) or generator.dtype != np.uint64:
                raise ModelError("training state: the generator is garbled")
            return cls(
                optimizer=group("optimizer"),
                generator=dict(about["generator"]),
                engine_generator=generator,
                order=group("order"),
                loss=[float(v) for v in arrays["loss"]],
                validation=[(int(s), float(v)) for s, v in arrays["validation"]],
                skipped=int(about["skipped"]),
                loss_scale=(float(value), int(good)),
                best_step=int(about["best_step"]),
                parameters=group("parameters") if about["has_parameters"] else None,
                data=str(about["data"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"training state: {error!r} is missing or garbled") from error
