"""`ternio train`: from a data file to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ternio.cli.common import JsonOption, emit, example, note, say
from ternio.errors import DataError

if TYPE_CHECKING:
    from ternio.data import Prepared
    from ternio.train import Trained

_DATA, _MODEL, _TRAINING = "Data", "Model", "Training"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("train", epilog=example("ternio train gestures.csv --task classify -o g.ckpt"))(
        train
    )


def _option(panel: str, *names: str, text: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


def train(
    source: Annotated[
        str, typer.Argument(metavar="DATA", help=".csv, .npz, .ts, a folder, or `motion`.")
    ],
    task: Annotated[str, typer.Option(help="What to learn; now: classify.")] = "classify",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Checkpoint; by default NAME.ckpt.")
    ] = None,
    test: Annotated[
        str | None, _option(_DATA, "--test", text="Test data; by default a part of DATA.")
    ] = None,
    label: Annotated[str | None, _option(_DATA, "--label", text="Label column of a table.")] = None,
    example_id: Annotated[
        str | None, _option(_DATA, "--id", text="Column that numbers the examples.")
    ] = None,
    layout: Annotated[
        str | None, _option(_DATA, "--layout", text="Order in .npz: nlc or ncl (channels first).")
    ] = None,
    length: Annotated[
        int | None, _option(_DATA, "--length", text="Samples per window, where lengths differ.")
    ] = None,
    rate: Annotated[float | None, _option(_DATA, "--rate", text="Sampling rate in Hz.")] = None,
    nan: Annotated[
        str, _option(_DATA, "--nan", text="Missing values: refuse, interpolate, drop.")
    ] = "refuse",
    test_fraction: Annotated[
        float, _option(_DATA, "--test-fraction", text="Part set aside without --test.")
    ] = 0.25,
    float_weights: Annotated[
        bool, _option(_MODEL, "--float", text="Float weights: the twin to compare with.")
    ] = False,
    patch: Annotated[
        int | None, _option(_MODEL, "--patch", text="Samples per position; by default 4.")
    ] = None,
    width: Annotated[int, _option(_MODEL, "--width", text="Width of the model.")] = 64,
    layers: Annotated[int, _option(_MODEL, "--layers", text="Transformer blocks.")] = 2,
    heads: Annotated[int, _option(_MODEL, "--heads", text="Attention heads.")] = 4,
    kv_heads: Annotated[
        int, _option(_MODEL, "--kv-heads", text="Key/value heads, 0: as many as heads.")
    ] = 0,
    ffn: Annotated[int, _option(_MODEL, "--ffn", text="Hidden width of SwiGLU.")] = 128,
    steps: Annotated[int, _option(_TRAINING, "--steps", text="Updates.")] = 300,
    batch: Annotated[int, _option(_TRAINING, "--batch", text="Examples per update.")] = 20,
    lr: Annotated[float, _option(_TRAINING, "--lr", text="Learning rate.")] = 2e-3,
    weight_decay: Annotated[float, _option(_TRAINING, "--weight-decay", text="AdamW's.")] = 0.05,
    augment: Annotated[
        bool, _option(_TRAINING, "--augment/--no-augment", text="Noise, gain, circular shift.")
    ] = True,
    seed: Annotated[int, _option(_TRAINING, "--seed", text="Same seed, same model.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Trains a classifier of sensor windows on your data and writes a checkpoint."""
    from ternio import data
    from ternio.checkpoint import save_checkpoint
    from ternio.train import TrainConfig, progress_bar, train_classifier

    if task != "classify":
        raise DataError(f"--task {task}: this version trains 'classify'")
    off = {} if augment else {"noise": 0.0, "gain": 0.0, "shift": 0.0}
    config = TrainConfig(steps, batch, lr, weight_decay=weight_decay, seed=seed, **off)
    sets = data.load(
        source,
        test,
        label=label,
        example_id=example_id,
        layout=layout,
        length=length,
        nan=nan,
        test_fraction=test_fraction,
        seed=seed,
        rate_hz=rate,
    )
    stem = Path(source).resolve().stem or "model"
    path = output or Path(f"{stem}.ckpt")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}")
    shape = {"width": width, "layers": layers, "heads": heads, "kv_heads": kv_heads, "ffn": ffn}
    shape |= {"ternary": not float_weights} | ({} if patch is None else {"patch": patch})
    with progress_bar("training") as progress:
        trained = train_classifier(sets, _model_name(stem), config, progress, **shape)
    size = save_checkpoint(path, trained.checkpoint)
    facts = _facts(sets, trained, path, size)
    if as_json:
        emit(facts)
    else:
        _print(facts, trained)
    if trained.fit.interrupted:
        raise typer.Exit(130)


def _model_name(stem: str) -> str:
    """As much of a file's name as a blob can carry: 31 bytes of UTF-8."""
    return stem.encode()[:31].decode(errors="ignore")


def _facts(sets: Prepared, trained: Trained, path: Path, size: int) -> dict[str, Any]:
    """What --json prints."""
    checkpoint = trained.checkpoint
    parameters, ternary = checkpoint.model.count()
    return {
        "data": sets.train.name,
        "train_examples": len(sets.train),
        "test_examples": len(sets.test),
        "channels": list(checkpoint.inputs.channels),
        "length": checkpoint.inputs.length,
        "labels": list(checkpoint.labels),
        "parameters": parameters,
        "ternary_weights": ternary,
        "steps": len(trained.fit.loss),
        "seconds": round(trained.fit.seconds, 2),
        "loss": trained.fit.loss[-1] if trained.fit.loss else None,
        "test_correct": trained.evaluation.correct,
        "test_accuracy": trained.evaluation.accuracy,
        "confusion": trained.evaluation.confusion.tolist(),
        "checkpoint": str(path),
        "bytes": size,
        "interrupted": trained.fit.interrupted,
        "notes": trained.notes,
    }


def _print(facts: dict[str, Any], trained: Trained) -> None:
    """The same in a few lines."""
    for text in trained.notes:
        note(text)
    shown = ", ".join(facts["labels"][:6]) + (", ..." if len(facts["labels"]) > 6 else "")
    kind = f"{facts['ternary_weights']} of them ternary" if facts["ternary_weights"] else "float"
    say(
        f"data    {facts['data']}: {facts['train_examples']} + {facts['test_examples']} examples, "
        f"{len(facts['channels'])} channels x {facts['length']} samples, "
        f"{len(facts['labels'])} classes ({shown})"
    )
    say(f"model   {facts['parameters']} parameters, {kind}")
    stopped = " (interrupted)" if facts["interrupted"] else ""
    if trained.fit.loss:
        first, last = trained.fit.loss[0], trained.fit.loss[-1]
        say(
            f"train   {facts['steps']} steps in {facts['seconds']:.1f} s{stopped}, "
            f"loss {first:.3f} -> {last:.4f}"
        )
    right, total = facts["test_correct"], facts["test_examples"]
    say(f"test    {right} of {total} right ({100 * facts['test_accuracy']:.1f} %)")
    say(f"wrote   {facts['checkpoint']} ({facts['bytes'] / 1000:.0f} KB)")
    say(f"next    ternio pack {facts['checkpoint']}")
