"""Checkpoints: one .npz file (no pickle) with a model, its labels, its input, and its training.

The entry `checkpoint` is JSON; `param/NAME` are the parameters, `history/loss` the loss per step.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .data import InputDescription
from .errors import DataError, ModelError
from .models import Classifier, ClassifierConfig

FORMAT, VERSION = "ternio checkpoint", 1


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        model: in evaluation mode; `model.config` describes it.
        labels: class names, one per output.
        inputs: channels, window and number range of the input.
        name: of the model, as a blob will carry it.
        loss: float32, per training step.
        report: few facts for people, which a blob carries too: data set, accuracy, seed.
        training: the settings it was trained with.
    """

    model: Classifier
    labels: tuple[str, ...]
    inputs: InputDescription
    name: str
    loss: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    report: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ClassifierConfig:
        """The model's configuration."""
        return self.model.config


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> int:
    """Writes a file, or nothing at all when that fails half-way.

    Returns:
        its bytes.
    """
    path = Path(path)
    about = {
        "format": FORMAT,
        "version": VERSION,
        "name": checkpoint.name,
        "model": checkpoint.config.to_dict(),
        "labels": list(checkpoint.labels),
        "inputs": checkpoint.inputs.to_dict(),
        "report": checkpoint.report,
        "training": checkpoint.training,
    }
    arrays = {f"param/{k}": v for k, v in checkpoint.model.state_dict().items()}
    arrays["history/loss"] = np.asarray(checkpoint.loss, dtype=np.float32)
    arrays["checkpoint"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ModelError(f"{path}: cannot be written ({error.strerror})") from error
    return path.stat().st_size


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file that save_checkpoint() wrote.

    Raises:
        ModelError: the file is missing, damaged, of another kind or version, or inconsistent.
    """
    path = Path(path)
    about, arrays = _read(path)
    try:
        config = ClassifierConfig.from_dict(about["model"])
        inputs = InputDescription.from_dict(about["inputs"])
        labels = tuple(str(label) for label in about["labels"])
        name = str(about["name"])
        report, training = dict(about["report"]), dict(about["training"])
        if len(labels) != config.classes or len(set(labels)) != len(labels):
            raise ModelError(f"{len(labels)} labels for {config.classes} outputs")
        if (inputs.length, len(inputs.channels)) != (config.length, config.channels):
            raise ModelError("the input description does not fit the model")
        state = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
        _check_size(config, state)
        model = Classifier(config)
        model.load_state_dict(state)
    except (ModelError, DataError) as error:
        raise ModelError(f"{path.name}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path.name}: the checkpoint lacks or garbles {error}") from error
    loss = arrays.get("history/loss", np.zeros(0, np.float32))
    model.eval()
    return Checkpoint(model, labels, inputs, name, loss, report, training)


def _check_size(config: ClassifierConfig, state: dict[str, np.ndarray]) -> None:
    """Refuses a configuration much larger than its weights before memory is taken for it."""
    blocks = config.layers * config.width * (2 * config.width + 3 * config.ffn)
    if blocks > sum(math.prod(v.shape) for v in state.values()):
        raise ModelError("the configuration describes a larger model than the file holds")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    hint = "not a ternio checkpoint; expected a file that `ternio train` wrote"
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise ModelError(f"{path.name}: {hint}")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if "checkpoint" not in arrays:
            raise ModelError(f"{path.name}: {hint}")
        about = json.loads(arrays.pop("checkpoint").tobytes().decode())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        ValueError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
    ) as error:
        raise ModelError(f"{path.name}: the file is damaged ({error})") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ModelError(f"{path.name}: {hint}")
    if about.get("version") != VERSION:
        raise ModelError(
            f"{path.name}: checkpoint version {about.get('version')}; this ternio reads {VERSION}"
        )
    return about, arrays
