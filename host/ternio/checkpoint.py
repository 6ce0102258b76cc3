"""Checkpoints: one .npz file (no pickle) with a model, what it was made for, and its training.

The entry `checkpoint` is JSON; `param/NAME` are the parameters, `history/loss` the loss per step,
`state/...` where the training stopped. Parameters alone also go to and from safetensors files.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .data import InputDescription, Vocabulary
from .errors import DataError, ModelError
from .files import write_whole
from .lora import has_factors
from .models import (
    Classifier,
    ClassifierConfig,
    LanguageModel,
    LanguageModelConfig,
    build,
    config_from_dict,
)
from .nn import Module
from .train_state import TrainState

FORMAT, VERSION = "ternio checkpoint", 1


@dataclass
class Checkpoint:
    """What a checkpoint file holds: a classifier with labels and inputs, or a language model with
    its vocabulary.

    Attributes:
        model: in evaluation mode; `model.config` describes it.
        labels: class names, one per output of a classifier.
        inputs: channels, window and number range of a classifier's input.
        name: of the model, as a blob will carry it.
        loss: float32, per training step.
        report: few facts for people, which a blob carries too: data set, accuracy, seed.
        training: the settings it was trained with.
        vocabulary: of a language model.
        state: where its training stopped, to go on from; None once that is of no interest.
    """

    model: Classifier | LanguageModel
    labels: tuple[str, ...] = ()
    inputs: InputDescription | None = None
    name: str = "model"
    loss: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    report: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    state: TrainState | None = None

    @property
    def config(self) -> ClassifierConfig | LanguageModelConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def kind(self) -> str:
        """The task it was trained for: "classify" or "lm"."""
        return "classify" if isinstance(self.model, Classifier) else "lm"

    @property
    def classifier(self) -> Classifier:
        """The model; ModelError when it is none."""
        if not isinstance(self.model, Classifier):
            raise ModelError(f"{self.name} is a language model; expected a classifier")
        return self.model

    @property
    def language_model(self) -> LanguageModel:
        """The model; ModelError when it is none."""
        if not isinstance(self.model, LanguageModel):
            raise ModelError(f"{self.name} is a classifier; expected a language model")
        return self.model


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> int:
    """Writes a file, or nothing at all when that fails half-way.

    Returns:
        its bytes.
    """
    path = Path(path)
    if has_factors(checkpoint.model):
        raise ModelError(
            f"{path.name}: the model has LoRA factors; lora.save() them, lora.remove() them first"
        )
    about: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kind": checkpoint.kind,
        "name": checkpoint.name,
        "model": checkpoint.config.to_dict(),
        "report": checkpoint.report,
        "training": checkpoint.training,
    }
    if checkpoint.inputs is not None:
        about |= {"labels": list(checkpoint.labels), "inputs": checkpoint.inputs.to_dict()}
    if checkpoint.vocabulary is not None:
        about["vocabulary"] = checkpoint.vocabulary.to_dict()
    arrays = {f"param/{k}": v for k, v in checkpoint.model.state_dict().items()}
    arrays["history/loss"] = np.asarray(checkpoint.loss, dtype=np.float32)
    if checkpoint.state is not None:
        about["state"], kept = checkpoint.state.to_file()
        arrays |= {f"state/{k}": v for k, v in kept.items()}
    arrays["checkpoint"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    return write_whole(path, lambda file: np.savez_compressed(file, **arrays))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file that save_checkpoint() wrote.

    Raises:
        ModelError: the file is missing, damaged, of another kind or version, or inconsistent.
    """
    path = Path(path)
    about, arrays = _read(path)
    try:
        config = config_from_dict(about["model"])
        described = _described(about, config)
        name = str(about["name"])
        report, training = dict(about["report"]), dict(about["training"])
        state = _group(arrays, "param/")
        _check_size(config, state)
        model = build(config)
        model.load_state_dict(state)
        if "state" in about:
            described["state"] = TrainState.from_file(about["state"], _group(arrays, "state/"))
    except (ModelError, DataError) as error:
        raise ModelError(f"{path.name}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path.name}: the checkpoint lacks or garbles {error}") from error
    loss = arrays.get("history/loss", np.zeros(0, np.float32))
    model.eval()
    return Checkpoint(model, name=name, loss=loss, report=report, training=training, **described)


def _described(
    about: dict[str, Any], config: ClassifierConfig | LanguageModelConfig
) -> dict[str, Any]:
    """What a checkpoint of a kind has beside the model, checked against its configuration."""
    if isinstance(config, LanguageModelConfig):
        vocabulary = Vocabulary.from_dict(about["vocabulary"])
        if len(vocabulary) != config.vocabulary:
            raise ModelError(f"a vocabulary of {len(vocabulary)} for {config.vocabulary} outputs")
        return {"vocabulary": vocabulary}
    inputs = InputDescription.from_dict(about["inputs"])
    labels = tuple(str(label) for label in about["labels"])
    if len(labels) != config.classes or len(set(labels)) != len(labels):
        raise ModelError(f"{len(labels)} labels for {config.classes} outputs")
    if (inputs.length, len(inputs.channels)) != (config.length, config.channels):
        raise ModelError("the input description does not fit the model")
    return {"inputs": inputs, "labels": labels}


def _group(arrays: dict[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def _check_size(
    config: ClassifierConfig | LanguageModelConfig, state: dict[str, np.ndarray]
) -> None:
    """Refuses a configuration much larger than its weights before memory is taken for it."""
    if config.block_weights > sum(math.prod(v.shape) for v in state.values()):
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


def export_safetensors(path: str | Path, model: Module) -> int:
    """Writes the parameters of a module as .safetensors; with the configuration in the metadata
    where it has one (Classifier, LanguageModel), so that import_safetensors() can build it.

    Needs the package `safetensors` (pip install 'ternio[safetensors]').

    Returns:
        the file's bytes.
    """
    library, path = _safetensors(), Path(path)
    if has_factors(model):
        raise ModelError(f"{path.name}: the model has LoRA factors; lora.remove() them first")
    metadata = {"format": "ternio"}
    if isinstance(model, (Classifier, LanguageModel)):
        metadata["model"] = json.dumps(model.config.to_dict())
    content = library.numpy.save(model.state_dict(), metadata=metadata)
    return write_whole(path, lambda file: file.write(content))


def import_safetensors(path: str | Path, model: Module | None = None) -> Module:
    """Reads parameters from .safetensors; half (also bfloat16) and double precision become float32.

    Args:
        path: the file.
        model: takes the parameters over, names and shapes have to be its; without one the file has
            to come from export_safetensors() of a Classifier or LanguageModel.

    Returns:
        the model.

    Raises:
        ModelError: the file is missing, damaged, or does not fit. The model is unchanged then.
    """
    library, path = _safetensors(), Path(path)
    try:
        with library.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        stored = library.deserialize(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the library raises its own kinds, one of them not even exported
        raise ModelError(f"{path.name}: not a sound .safetensors file ({error})") from error
    try:
        state = {name: _float32(name, entry) for name, entry in stored}
        if model is None:
            if "model" not in metadata or metadata.get("format") != "ternio":
                raise ModelError("does not say which model it is of; give one to load it into")
            config = config_from_dict(json.loads(metadata["model"]))
            _check_size(config, state)
            model = build(config)
        model.load_state_dict(state)
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path.name}: its metadata lack or garble {error}") from error
    return model


def _float32(name: str, entry: dict[str, Any]) -> np.ndarray:
    """A stored tensor widened or narrowed. NumPy has no bfloat16: it is the upper half of a
    float32.
    """
    kinds = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
    if entry["dtype"] not in kinds:
        raise ModelError(f"{name}: stored as {entry['dtype']}; expected {', '.join(kinds)}")
    values = np.frombuffer(entry["data"], kinds[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # infinities are refused by load_state_dict()
        return values.astype(np.float32)


def _safetensors() -> Any:
    """The package, which is optional."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ModelError(
            "the package safetensors is not installed; pip install 'ternio[safetensors]'"
        ) from error
    return safetensors
