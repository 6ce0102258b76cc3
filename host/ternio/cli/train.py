"""`ternio train`: from a data file to a checkpoint. The two tasks are in train_tasks.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ternio.cli.common import SEED, JsonOption, example
from ternio.errors import DataError

_DATA, _MODEL, _TRAINING, _TEXT = "Data", "Model", "Training", "Text"
_TASKS = ("classify", "lm")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("train", epilog=example("ternio train gestures.csv --task classify -o g.ckpt"))(
        train
    )


def _option(panel: str, *names: str, text: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


def train(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA", help=".csv, .npz, .ts, a folder, `motion`; a text file or `text`."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="classify (windows) or lm (text); by default by DATA.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Checkpoint; by default NAME.ckpt.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on where this checkpoint stopped.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the loss curve: .png, .svg or .pdf.")
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
    window: Annotated[
        int | None, _option(_DATA, "--window", text="Cut recordings into windows of N samples.")
    ] = None,
    stride: Annotated[
        int | None, _option(_DATA, "--stride", text="Samples between windows; default N/2.")
    ] = None,
    rate: Annotated[float | None, _option(_DATA, "--rate", text="Sampling rate in Hz.")] = None,
    nan: Annotated[
        str, _option(_DATA, "--nan", text="Missing values: refuse, interpolate, drop.")
    ] = "refuse",
    test_fraction: Annotated[
        float, _option(_DATA, "--test-fraction", text="Part set aside without --test.")
    ] = 0.25,
    text: Annotated[
        str | None,
        _option(_TEXT, "--text", text="Text file (UTF-8; any with bytes): DATA with --task lm."),
    ] = None,
    vocabulary: Annotated[
        str | None,
        _option(_TEXT, "--vocabulary", text="characters (default), or bytes: takes any file."),
    ] = None,
    context: Annotated[
        int | None, _option(_TEXT, "--context", text="Tokens that the model sees; default 128.")
    ] = None,
    prompt: Annotated[
        str | None, _option(_TEXT, "--prompt", text="What the sample goes on from; a line break.")
    ] = None,
    sample: Annotated[
        int, _option(_TEXT, "--sample", text="Tokens to write at the end; 0: none.")
    ] = 200,
    temperature: Annotated[
        float, _option(_TEXT, "--temperature", text="Of the sample; 0: the likeliest token.")
    ] = 0.8,
    top_k: Annotated[
        int, _option(_TEXT, "--top-k", text="Sample among the k likeliest; 0: all.")
    ] = 0,
    float_weights: Annotated[
        bool, _option(_MODEL, "--float", text="Float weights: the twin to compare with.")
    ] = False,
    patch: Annotated[
        int | None, _option(_MODEL, "--patch", text="Samples per position; default 4.")
    ] = None,
    width: Annotated[
        int | None, _option(_MODEL, "--width", text="Of the model; default 64, text 128.")
    ] = None,
    layers: Annotated[
        int | None, _option(_MODEL, "--layers", text="Transformer blocks; default 2, text 4.")
    ] = None,
    heads: Annotated[
        int | None, _option(_MODEL, "--heads", text="Attention heads; default 4.")
    ] = None,
    kv_heads: Annotated[
        int | None, _option(_MODEL, "--kv-heads", text="Key/value heads; default all, text 2.")
    ] = None,
    ffn: Annotated[
        int | None, _option(_MODEL, "--ffn", text="Hidden width of SwiGLU; default 128, text 256.")
    ] = None,
    steps: Annotated[
        int | None, _option(_TRAINING, "--steps", text="Updates; default 300, text 600.")
    ] = None,
    batch: Annotated[
        int | None, _option(_TRAINING, "--batch", text="Examples per pass; default 20, text 16.")
    ] = None,
    accumulate: Annotated[
        int | None, _option(_TRAINING, "--accumulate", text="Passes per update; default 1.")
    ] = None,
    lr: Annotated[
        float | None, _option(_TRAINING, "--lr", text="Highest; default 0.002, text 0.008.")
    ] = None,
    warmup: Annotated[
        int | None, _option(_TRAINING, "--warmup", text="Updates with a rising rate.")
    ] = None,
    schedule: Annotated[
        str | None,
        _option(_TRAINING, "--schedule", text="cosine (default), linear (text), step, constant."),
    ] = None,
    optimizer: Annotated[
        str | None, _option(_TRAINING, "--optimizer", text="adamw (default), adam, chuck.")
    ] = None,
    weight_decay: Annotated[
        float | None, _option(_TRAINING, "--weight-decay", text="AdamW's; default 0.05, text 0.1.")
    ] = None,
    patience: Annotated[
        int | None,
        _option(_TRAINING, "--patience", text="Stop after so many validations without a better."),
    ] = None,
    evaluate_every: Annotated[
        int | None, _option(_TRAINING, "--evaluate-every", text="Steps between validations.")
    ] = None,
    augment: Annotated[
        bool, _option(_TRAINING, "--augment/--no-augment", text="Noise, gain, circular shift.")
    ] = True,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="Same seed, same model; default 0.", rich_help_panel=_TRAINING, **SEED
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            min=1,
            max=64,
            help="That share the work; the result is the same.",
            rich_help_panel=_TRAINING,
        ),
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Trains a classifier of sensor windows, or a language model, and writes a checkpoint."""
    from ternio import set_num_threads
    from ternio.cli.train_tasks import Job, classify, language

    if source is not None and text is not None:
        raise DataError(f"DATA {source} and --text {text}: give one of them")
    source = source or text
    if source is None:
        raise DataError("DATA is missing: a data file, `motion`, a text file, or `text`")
    task = task or ("lm" if text or _is_reference_text(source) else "classify")
    if task not in _TASKS:
        raise DataError(f"--task {task}: expected {' or '.join(_TASKS)}")
    shape = {"width": width, "layers": layers, "heads": heads, "kv_heads": kv_heads, "ffn": ffn}
    settings = {
        "steps": steps,
        "batch": batch,
        "accumulate": accumulate,
        "lr": lr,
        "warmup": warmup,
        "schedule": schedule,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "patience": patience,
        "evaluate_every": evaluate_every,
        "seed": seed,
    }
    of_task = {"classify": {"patch": patch}, "lm": {"context": context, "vocabulary": vocabulary}}
    of_data = {
        "test": test,
        "label": label,
        "id": example_id,
        "layout": layout,
        "length": length,
        "window": window,
        "stride": stride,
        "rate": rate,
    }
    wrong = of_task["classify"] | of_data if task == "lm" else of_task["lm"] | {"prompt": prompt}
    for name, value in wrong.items():
        if value is not None:
            other = _TASKS[task == "classify"]
            raise DataError(f"--{name} is for --task {other}; the task is {task}")
    set_num_threads(threads)
    job = Job(
        source,
        test,
        output,
        resume,
        plot,
        shape={**shape, **of_task[task], "ternary": False if float_weights else None},
        settings=settings,
        as_json=as_json,
    )
    if task == "lm":
        language(job, prompt, sample, temperature, top_k)
        return
    options = {
        "label": label,
        "example_id": example_id,
        "layout": layout,
        "length": length,
        "window": window,
        "stride": stride,
        "nan": nan,
        "test_fraction": test_fraction,
        "rate_hz": rate,
    }
    classify(job, options, augment)


def _is_reference_text(source: str) -> bool:
    from ternio.data import REFERENCE_TEXT

    return source == REFERENCE_TEXT and not Path(source).exists()
