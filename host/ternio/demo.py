"""`ternio demo motion`: the reference model on the whole road, every promise measured.

Trains a float and a ternary model on BasicMotions, packs and flashes the ternary one, classifies
the test set on the board, shows it failing on the other wrist, teaches it there with LoRA, and
takes the adapter off again. Board, native board and Python must agree to the bit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ternio.boards import Board, load_board
from ternio.errors import ModelError
from ternio.report import Account, Promise, draw, print_promises, write_json

STEPS, PER_CLASS, LR = 200, 10, 5e-3
ACCURACY, FAILING, RECOVERED = 0.975, 0.5, 0.9
BLOB_BYTES, INFER_ARENA, ADAPT_ARENA = 32 * 1024, 24 * 1024, 96 * 1024

Tell = Callable[[str], None]


@dataclass
class _Road:
    """What the steps of the demonstration hand on to each other."""

    board: Board
    output: Path
    seed: int
    tell: Tell
    float_accuracy: float = 0.0
    host_accuracy: float = 0.0
    weights: int = 0
    blob: bytes = b""
    flash_sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    adapters: dict[str, bytes] = field(default_factory=dict)
    loss: dict[str, list[float]] = field(default_factory=dict)
    us: dict[str, int] = field(default_factory=dict)
    where: str = ""

    @property
    def blob_path(self) -> Path:
        return self.output / "motion.tern"


def run_motion(
    board_name: str, output: Path, seed: int, tell: Tell, table_on_stderr: bool = False
) -> dict[str, Any]:
    """Walks the road, writes checkpoint, blob, adapter, figure and JSON to `output`.

    Returns the facts that report.json holds; `kept` tells whether every promise was kept.
    """
    start = time.monotonic()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"cannot make the folder {output}: {error.strerror}") from None
    road = _Road(_usable_board(board_name, tell), output, seed, tell)
    _train(road)
    _pack(road)
    with ExitStack() as stack:
        clients = _flash(road, stack)
        _classify_and_adapt(road, clients)
    account = _account(road, time.monotonic() - start)
    return _report(road, account, table_on_stderr)


def _usable_board(name: str, tell: Tell) -> Board:
    """The board, or the native one where the emulator or the Arm compiler is not installed."""
    board = load_board(name)
    needed = () if board.is_native else ("qemu-system-arm", "arm-none-eabi-gcc")
    missing = [program for program in needed if shutil.which(program) is None]
    if not missing:
        return board
    tell(f"{' and '.join(missing)} not installed: the native board stands in for {name}")
    return load_board("native")


# ---- host ---------------------------------------------------------------------------------------


def _train(road: _Road) -> None:
    """Float twin and ternary model with the same settings; the ternary one becomes a checkpoint."""
    from ternio import data, manual_seed
    from ternio.checkpoint import Checkpoint, save_checkpoint
    from ternio.models import Classifier, ClassifierConfig
    from ternio.train import TrainConfig, evaluate, fit, progress_bar

    train, test = data.basic_motions()
    inputs = data.InputDescription.from_training(train)
    for ternary in (False, True):
        what = "ternary" if ternary else "float"
        manual_seed(road.seed)
        config = ClassifierConfig(len(inputs.channels), inputs.length, len(train.labels))
        model = Classifier(ClassifierConfig(**{**vars(config), "ternary": ternary}))
        with progress_bar(f"training, {what}") as progress:
            result = fit(model, inputs, train, TrainConfig(seed=road.seed), progress)
        if result.interrupted:
            raise KeyboardInterrupt
        accuracy = evaluate(model, inputs, test).accuracy
        road.tell(f"trained {what}: test accuracy {accuracy:.3f} in {result.seconds:.1f} s")
        if not ternary:
            road.float_accuracy = accuracy
            continue
        road.host_accuracy = accuracy
        report = {"data": train.name, "accuracy": accuracy, "seed": road.seed}
        loss = np.array(result.loss, np.float32)
        checkpoint = Checkpoint(model, train.labels, inputs, "motion", loss, report)
        save_checkpoint(road.output / "motion.ckpt", checkpoint)


def _pack(road: _Road) -> None:
    from ternio.checkpoint import load_checkpoint
    from ternio.compile import pack_checkpoint

    blob = pack_checkpoint(load_checkpoint(road.output / "motion.ckpt"))
    road.blob = blob.encode()
    road.weights = sum(t.rows * t.cols for t in blob.tensors if t.gamma)
    road.blob_path.write_bytes(road.blob)
    road.tell(
        f"packed {road.blob_path}: {len(road.blob)} bytes, arena {blob.infer_arena} to infer, "
        f"{blob.adapt_arena} to adapt"
    )


# ---- boards -------------------------------------------------------------------------------------


def _flash(road: _Road, stack: ExitStack) -> dict[str, Any]:
    """Starts the board and the native board with the model; both stop when all is done."""
    from ternio.link.client import BoardClient
    from ternio.link.flash import flash
    from ternio.link.virtual import VirtualBoards

    virtual = VirtualBoards(road.output / "boards")
    stack.callback(virtual.stop_all)
    clients = {}
    for board in dict.fromkeys([road.board.name, "native"]):
        target = road.board if board == road.board.name else load_board(board)
        done = flash(target, road.blob_path, full=True, virtual=virtual, tell=lambda text: None)
        road.tell(
            f"flashed {board}: {done.how} in {done.seconds:.1f} s, {done.info.board} on "
            f"{done.port}, storage {done.info.storage}"
        )
        if board == road.board.name:
            road.flash_sizes, road.where = done.sizes, done.info.storage
        clients[board] = stack.enter_context(BoardClient(done.port))
    return clients


def _classify_and_adapt(road: _Road, clients: dict[str, Any]) -> None:
    from ternio import data
    from ternio.link.teach import choose_examples, teach
    from ternio.runtime import Model, Session

    train, test = data.basic_motions()
    model = Model.open(road.blob)
    windows = {
        name: data.quantize_window(part.x, model.input_scale)
        for name, part in (
            ("test", test),
            ("other test", data.other_wrist(test)),
            ("other train", data.other_wrist(train)),
        )
    }
    machines = {**clients, "python": _Python(Session(model))}
    board = road.board.name
    for name, machine in machines.items():
        _infer_all(road, f"{name} test", machine, windows["test"])
    _infer_all(road, f"{board} before", clients[board], windows["other test"])
    _tell_accuracy(road, "first wrist", f"{board} test", test.y)
    _tell_accuracy(road, "other wrist, before", f"{board} before", test.y)
    chosen = choose_examples(train.y, PER_CLASS, road.seed)
    for name, machine in machines.items():
        start = time.monotonic()
        steps = teach(
            machine, windows["other train"][chosen], train.y[chosen], STEPS, LR, road.seed
        )
        road.loss[name] = [step.loss for step in steps]
        road.us[f"{name} adapt"] = int(np.median([step.us for step in steps]))
        road.adapters[name] = machine.adapter_pull()
        if name == board:
            took = time.monotonic() - start
            road.tell(f"adapted on {board}: {STEPS} steps in {took:.0f} s")
            machine.adapter_save()
            (road.output / "wrist.tadp").write_bytes(machine.adapter_pull())
            _infer_all(road, f"{name} after", machine, windows["other test"])
            _tell_accuracy(road, "other wrist, after", f"{name} after", test.y)
            machine.adapter_reset()
            _infer_all(road, f"{name} reset", machine, windows["test"])
            _tell_accuracy(road, "adapter off, first wrist", f"{name} reset", test.y)


class _Python:
    """The runtime in this process, with the calls of a BoardClient."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def infer(self, window: np.ndarray) -> Any:
        from ternio.link.client import Inference

        logits = self._session.infer(window)
        return Inference(logits, int(logits.argmax()), 0)

    def adapt_begin(self, **config: Any) -> tuple[int, int]:
        self._session.adapt_begin(**config)
        return self._session.steps, 0

    def adapt_step(self, window: np.ndarray, label: int) -> Any:
        from ternio.link.client import Step

        loss = self._session.adapt_step(window, label)
        return Step(loss, self._session.steps, 0)

    def adapter_pull(self) -> bytes:
        return self._session.adapter_bytes()


def _infer_all(road: _Road, key: str, machine: Any, windows: np.ndarray) -> None:
    results = [machine.infer(window) for window in windows]
    road.logits[key] = np.stack([r.logits for r in results])
    road.us[key] = int(np.median([r.us for r in results]))


def _accuracy(road: _Road, key: str) -> float:
    from ternio import data

    return float((road.logits[key].argmax(1) == data.basic_motions()[1].y).mean())


def _tell_accuracy(road: _Road, what: str, key: str, y: np.ndarray) -> None:
    right = int((road.logits[key].argmax(1) == y).sum())
    road.tell(f"{what}: {right} of {len(y)} right on {road.board.name}, {road.us[key]} us each")


# ---- the account --------------------------------------------------------------------------------


def _account(road: _Road, seconds: float) -> Account:
    board = road.board.name
    keys = ("test", "before", "after", "reset")
    values = {key: _accuracy(road, f"{board} {key}") for key in keys}
    accuracy = [
        ("float\non the host", road.float_accuracy, "base"),
        ("ternary\non the board", values["test"], "base"),
        ("other wrist\nbefore", values["before"], "failing"),
        ("other wrist\nafter LoRA", values["after"], "adapted"),
        ("first wrist,\nadapter off", values["reset"], "base"),
    ]
    title = (
        f"motion on {board} ({road.board.chip}): {round(road.weights / 1000)} k ternary weights in "
        f"{len(road.blob) / 1024:.1f} KB, taught another wrist on the board"
    )
    account = Account(title, accuracy, road.loss[board], _memory(road))
    account.promises = _promises(road, values, seconds)
    return account


def _promises(road: _Road, values: dict[str, float], seconds: float) -> list[Promise]:
    from ternio.runtime import Model

    board, model = road.board.name, Model.open(road.blob)
    others = [name for name in road.adapters if name != board]
    n = len(road.logits[f"{board} test"])
    same = min(_equal(road, f"{board} test", f"{name} test") for name in others)
    back = _equal(road, f"{board} test", f"{board} reset")
    files = all(road.adapters[name] == road.adapters[board] for name in others)
    losses = all(road.loss[name] == road.loss[board] for name in others)
    names = " = ".join([board, *others])
    size = len(road.adapters[board])

    def least(what: str, value: float, bound: float) -> Promise:
        return Promise(what, f">= {bound}", f"{value:.3f}", value >= bound)

    def most(what: str, value: float, bound: float, unit: str = "") -> Promise:
        text = f"{value:.3f}" if isinstance(value, float) else f"{value}"
        return Promise(what, f"<= {bound}{unit}", f"{text}{unit}", value <= bound)

    return [
        least("float model, test accuracy", road.float_accuracy, ACCURACY),
        least(f"ternary model on {board}, test accuracy", values["test"], ACCURACY),
        Promise(f"logits of {names}", f"{n} of {n} bit for bit", f"{same} of {n}", same == n),
        most("other wrist before adapting, accuracy", values["before"], FAILING),
        least(f"other wrist after {STEPS} steps on {board}", values["after"], RECOVERED),
        Promise(
            f"adapter of {names}",
            "bit for bit",
            f"{size} bytes, losses and factors {'equal' if files and losses else 'DIFFER'}",
            files and losses,
        ),
        Promise(
            "first logits back after adapter reset", f"{n} of {n}", f"{back} of {n}", back == n
        ),
        most("blob", len(road.blob), BLOB_BYTES, " bytes"),
        most("arena to infer", model.infer_arena, INFER_ARENA, " bytes"),
        most("arena to adapt", model.adapt_arena, ADAPT_ARENA, " bytes"),
        most("time of the demonstration", round(seconds), 600, " s"),
    ]


def _equal(road: _Road, a: str, b: str) -> int:
    """How many windows have the same logits under both keys, bit for bit."""
    pairs = zip(road.logits[a], road.logits[b], strict=True)
    return sum(x.tobytes() == y.tobytes() for x, y in pairs)


def _memory(road: _Road) -> dict[str, tuple[list[tuple[str, int]], int]]:
    from ternio.runtime import Model

    model, board = Model.open(road.blob), road.board
    parts = {kind: [] for kind in ("flash", "ram")}
    for name, sizes in road.flash_sizes.items():
        for kind, found in parts.items():
            if sizes.get(kind):
                found.append((name, sizes[kind]))
    return {
        "flash": (parts["flash"] or [("model", len(road.blob))], board.flash.bytes),
        "RAM": (_ram_parts(parts["ram"], model, board), board.ram.bytes),
    }


def _ram_parts(parts: list[tuple[str, int]], model: Any, board: Board) -> list[tuple[str, int]]:
    """The arena, told apart into what inferring and adapting need, before everything else."""
    used = [
        ("to infer", model.infer_arena),
        ("to adapt", model.adapt_arena - model.infer_arena),
        ("arena, spare", board.arena_bytes - model.adapt_arena),
    ]
    rest = sum(size for _, size in parts) - board.arena_bytes
    return used + ([("stack, buffers, state", rest)] if rest > 0 else [])


def _report(road: _Road, account: Account, table_on_stderr: bool) -> dict[str, Any]:
    figure, facts_path = road.output / "report.png", road.output / "report.json"
    facts = {
        "board": road.board.name,
        "storage": road.where,
        "seed": road.seed,
        "blob_bytes": len(road.blob),
        "host_accuracy": {"float": road.float_accuracy, "ternary": road.host_accuracy},
        "us": road.us,
    }
    draw(figure, account)
    write_json(facts_path, account, facts)
    road.tell("")
    print_promises(account.promises, table_on_stderr)
    road.tell("")
    road.tell(f"figure:  {figure}")
    road.tell(f"numbers: {facts_path}")
    road.tell(f"model:   {road.blob_path}; adapter: {road.output / 'wrist.tadp'}")
    return {**facts, "kept": account.kept, "figure": str(figure), "numbers": str(facts_path)}
