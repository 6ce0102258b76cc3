"""Where windows are classified: a board over its port, or the runtime on this computer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ternio.errors import LinkError, ModelError, RuntimeFault
from ternio.link.client import BoardClient, BoardInfo, Inference
from ternio.runtime import Model, Session

from .common import connect
from .examples import ModelFacts


class Machine:
    """Something that classifies windows.

    Attributes:
        facts: what it says of its model.
        infer: int16 window -> Inference.
        channel_names: asks what the model's channels are called; () where it does not say.
    """

    def __init__(
        self,
        facts: ModelFacts,
        infer: Callable[[np.ndarray], Inference],
        channel_names: Callable[[], tuple[str, ...]],
        client: BoardClient | None = None,
    ) -> None:
        self.facts, self.infer, self.channel_names = facts, infer, channel_names
        self._client = client

    def twin(self) -> Session:
        """A session on this computer with the board's own blob and adapter."""
        if self._client is None:
            raise LinkError("--native compares a board with this computer: leave --model out")
        session = Session(Model.open(self._client.download("/model")))
        if self._client.info().adapter != "none":
            session.attach(self._client.adapter_pull())
        return session


@contextmanager
def open_machine(board: str | None, port: str | None, model: Path | None) -> Iterator[Machine]:
    """The blob that `model` names, else the board that `board` or `port` means."""
    if model is not None:
        yield _local_machine(model)
        return
    with connect(board, port) as client:
        yield Machine(require_model(client), client.infer, client.channel_names, client)


def require_model(client: BoardClient, text: bool = False) -> BoardInfo:
    """The board's info; LinkError when it has no model, or one of text where windows are meant."""
    info = client.info()
    if info.is_stream and not text:
        raise LinkError(f"{info.model} on {info.board} takes text: use `ternio generate`")
    if not info.model:
        raise LinkError(f"{info.board} has no model ({info.reason}): send one with `ternio flash`")
    return info


def _local_machine(path: Path) -> Machine:
    model = Model.open(path)
    if model.kind == "tokens":
        raise ModelError(f"{path} takes text: use `ternio generate`")
    session = Session(model)

    def run(window: np.ndarray) -> Inference:
        start = time.perf_counter_ns()
        logits = session.infer(window)
        return Inference(logits, int(logits.argmax()), (time.perf_counter_ns() - start) // 1000)

    return Machine(model, run, model.channel_names)


def require_equal(board: np.ndarray, native: np.ndarray, place: str) -> None:
    """Raises RuntimeFault when two vectors of logits differ in a bit."""
    if board.tobytes() != native.tobytes():
        raise RuntimeFault(
            f"{place}: the board's logits {board.tolist()} differ from {native.tolist()} here"
        )
