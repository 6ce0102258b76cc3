"""A ternio board at the other end of a serial port: ask, infer, adapt, move models and adapters.

Frames are smpclient's work; this module adds the group of our own, windows in parts and resumed
uploads. Every failure is a LinkError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from smpclient.requests.os_management import EchoWrite, ResetWrite

from ternio.errors import LinkError, ModelError
from ternio.link import messages as m
from ternio.link.session import HELLO_TIMEOUT_S, BoardSession, is_banner

Progress = Callable[[int, int], None]

COMPUTE_TIMEOUT_S = 60.0
TOKENS_AT_ONCE = 8
PROMPT_BYTES = 128  # at once: each takes the board a step of its model
STORAGE_TIMEOUT_S = 20.0
TOKENS = 2  # `kind` of a model that takes tokens
DIGEST = slice(0x10, 0x30)  # in a blob, device/FORMAT.md
ADAPT_OPTIONS = ("lr", "beta1", "beta2", "eps", "decay", "clip", "seed", "sgd")


@dataclass(frozen=True)
class BoardInfo:
    """What a board says about itself; `model` is empty when it has none, then `reason` says why."""

    board: str
    firmware: str
    storage: str
    slot: str
    arena_bytes: int
    slot_bytes: int
    model: str
    reason: str
    refused: str
    digest: str
    blob_bytes: int
    channels: int
    length: int
    outputs: int
    labels: tuple[str, ...]
    input_scale: np.ndarray
    rate_hz: float
    infer_arena: int
    adapt_arena: int
    adapter: str
    adapter_floats: int
    steps: int
    is_stream: bool = False  # a model of tokens: `length` is its context, `outputs` its vocabulary
    position: int = 0  # tokens in the stream


@dataclass(frozen=True)
class Inference:
    """Logits as the board computed them (float32), the winning class, and the board's own time in
    microseconds.
    """

    logits: np.ndarray
    index: int
    us: int

    @property
    def probability(self) -> float:
        """Softmax probability of the winning class."""
        return self.probability_of(self.index)

    def probability_of(self, index: int) -> float:
        """Softmax probability of a class."""
        z = self.logits.astype(np.float64)
        e = np.exp(z - z.max())
        return float(e[index] / e.sum())


@dataclass(frozen=True)
class Step:
    """One adaptation step: cross-entropy before it in nats, its number, the board's time in
    microseconds.
    """

    loss: float
    step: int
    us: int


class BoardClient(BoardSession):
    """A session with one board; use it as a context manager.

    >>> with BoardClient("/dev/ttyACM0") as board:       # doctest: +SKIP
    ...     print(board.info().model)
    motion
    """

    # ---- board --------------------------------------------------------------------------------

    def info(self) -> BoardInfo:
        """Asks what the board and its model are."""
        a = self._ask(m.Info(), tries=2)
        labels = tuple(a.labels)
        if a.kind == TOKENS:
            labels = ()
        elif len(labels) < a.outputs:
            labels = _parse_labels(self.command("labels"), a.outputs) or labels
        return BoardInfo(
            board=a.board,
            firmware=a.firmware,
            storage=a.storage,
            slot=a.slot,
            arena_bytes=a.arena,
            slot_bytes=a.slot_bytes,
            model=a.model,
            reason=a.reason,
            refused=a.refused,
            digest=a.digest.hex(),
            blob_bytes=a.blob_bytes,
            channels=a.channels,
            length=a.length,
            outputs=a.outputs,
            labels=labels,
            input_scale=np.frombuffer(a.scale, dtype="<f4"),
            rate_hz=a.rate_hz,
            infer_arena=a.infer_arena,
            adapt_arena=a.adapt_arena,
            adapter=a.adapter,
            adapter_floats=a.floats,
            steps=a.steps,
            is_stream=a.kind == TOKENS,
            position=a.position,
        )

    def echo(self, text: str) -> str:
        """Sends `text` there and back."""
        return self._ask(EchoWrite(d=text), tries=2).r

    def reset(self, timeout_s: float = 15.0) -> str:
        """Restarts the board, waits for its banner and returns it."""
        self._ask(ResetWrite())
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for line in self.lines(timeout_s=0.2):
                if is_banner(line):
                    self._hello(HELLO_TIMEOUT_S)
                    return line
        raise LinkError(f"{self.port} did not come back within {timeout_s:g} s after the reset")

    # ---- inference and adaptation -------------------------------------------------------------

    def infer(self, window: np.ndarray) -> Inference:
        """Runs one window, int16 (or int8: the upper byte) of shape [length, channels] or flat."""
        answer = self._send_window(lambda **part: m.Infer(**part), window, tries=2)
        if answer.logits is None:
            raise LinkError(_incomplete(answer.off, window))
        return Inference(np.frombuffer(answer.logits, "<f4").copy(), int(answer.index), answer.us)

    def adapt_begin(self, **config: Any) -> tuple[int, int]:
        """Starts an adaptation from the attached adapter, else from fresh factors; returns (steps
        so far, floats).

        Options: lr, beta1, beta2, eps, decay, clip (floats), seed (int), sgd (bool). What is not
        given has the runtime's default. Floats are rounded to single precision here, as the board
        would.
        """
        unknown = sorted(set(config) - set(ADAPT_OPTIONS))
        if unknown:
            raise ModelError(
                f"adapt_begin has no option {unknown[0]!r}: there are {', '.join(ADAPT_OPTIONS)}"
            )
        values = {k: _single(v) for k, v in config.items() if v is not None}
        answer = self._ask(m.AdaptBegin(**values), COMPUTE_TIMEOUT_S)
        return answer.steps, answer.floats

    def adapt_step(self, window: np.ndarray, label: int, lr: float | None = None) -> Step:
        """One training example: window as in `infer`, `label` the index of its class."""
        extra = {} if lr is None else {"lr": _single(lr)}
        answer = self._send_window(
            lambda **part: m.AdaptStep(label=int(label), **part, **extra), window, tries=1
        )
        if answer.loss is None:
            raise LinkError(_incomplete(answer.off, window))
        return Step(answer.loss, answer.step, answer.us)

    def _send_window(self, build: Callable[..., Any], window: np.ndarray, tries: int) -> Any:
        """Sends a window in as many parts as the board's frames need; returns the answer to the
        last one.
        """
        data, fmt = window_bytes(window)
        answer = None
        off = 0
        while answer is None or off < len(data):
            probe = build(x=b"", off=off, fmt=fmt)
            _, room = self._client.get_max_cbor_and_data_size(probe)
            part = data[off : off + max(room & ~3, 4)]
            off += len(part)
            last = off >= len(data)
            request = build(x=part, off=off - len(part), fmt=fmt)
            answer = self._ask(request, COMPUTE_TIMEOUT_S, tries if last else 2)
            if not last and answer.off != off:
                raise LinkError(f"the board expects byte {answer.off} of the window, {off} came")
        return answer

    # ---- token streams ------------------------------------------------------------------------

    def prompt(self, text: str) -> int:
        """Starts the stream of a language model anew with a text; returns its tokens so far."""
        data, off, answer = text.encode(), 0, None
        while answer is None or off < len(data):
            more = {"more": True} if off else {}
            _, room = self._client.get_max_cbor_and_data_size(m.Prompt(text=b"", **more))
            part = data[off : off + min(room, PROMPT_BYTES)]
            while off + len(part) < len(data) and data[off + len(part)] & 0xC0 == 0x80:
                part = part[:-1]  # not in the middle of a character
            answer = self._ask(m.Prompt(text=part, **more), COMPUTE_TIMEOUT_S)
            off += len(part)
        return answer.position

    def generate(self, count: int, **settings: Any) -> Iterator[bytes]:
        """The next `count` tokens of the stream, as the bytes of their characters, a few at a time.

        Settings: temperature, top_p (floats), top_k, seed (ints), as of ternio.runtime.Sampler;
        what is not given has the board's default: the likeliest token of all.
        """
        values = {k: _single(v) for k, v in settings.items() if v is not None}
        while count > 0:
            n = min(count, TOKENS_AT_ONCE)
            answer = self._ask(m.Generate(n=n, **values), COMPUTE_TIMEOUT_S)
            values.pop("seed", None)
            count -= len(answer.tokens) // 2
            yield answer.text

    # ---- files --------------------------------------------------------------------------------

    def adapter_save(self) -> m.AdapterSaveResponse:
        """Stores the factors on the board and attaches them."""
        return self._ask(m.AdapterSave(), STORAGE_TIMEOUT_S)

    def adapter_reset(self) -> None:
        """Drops the running and the stored adapter: the base model answers again."""
        self._ask(m.AdapterReset(), STORAGE_TIMEOUT_S, tries=2)

    def adapter_pull(self) -> bytes:
        """The current adapter as a file (device/FORMAT.md, section 7)."""
        return self.download("/adapter")

    def adapter_push(self, data: bytes, progress: Progress | None = None) -> None:
        """Sends an adapter file; the board checks, stores and attaches it."""
        self.upload("/adapter", data, progress)

    def upload_model(self, blob: bytes, progress: Progress | None = None) -> None:
        """Sends a blob to the idle slot; the board verifies it and makes it current, or keeps the
        old one.
        """
        self.upload("/model", blob, progress)

    def channel_names(self) -> tuple[str, ...]:
        """What the model's channels were called in the training data; () where it does not say."""
        from ternio.blob.meta import channel_names

        return channel_names(self._read_model)

    def _read_model(self, start: int, count: int) -> bytes:
        """A part of the model's file."""
        data = b""
        while len(data) < count:
            request = m.FileDownload(off=start + len(data), name="/model")
            block = self._ask(request, STORAGE_TIMEOUT_S, tries=3).data
            if not block:
                break
            data += block
        return data[:count]

    def download(self, name: str) -> bytes:
        """A file of the board."""
        data, total = b"", None
        while total is None or len(data) < total:
            a = self._ask(m.FileDownload(off=len(data), name=name), STORAGE_TIMEOUT_S, tries=3)
            if total is None:
                total = a.len if a.len is not None else 0
            if a.off != len(data) or (not a.data and len(data) < total):
                raise LinkError(
                    f"{name}: the board sent byte {a.off}, expected {len(data)} of {total}"
                )
            data += a.data
        return data

    def upload(self, name: str, data: bytes, progress: Progress | None = None) -> None:
        """Sends a file; one that broke off before goes on where the board says it stopped."""
        if not data:
            raise LinkError(f"{name}: nothing to send, the file is empty")
        try:
            self._upload(name, data, progress)
        except LinkError as error:
            # The answer to the last block may be lost after the board has taken the file.
            if not self._holds(name, data):
                raise self._refusal(name) or error from None

    def _refusal(self, name: str) -> LinkError | None:
        """Why the board refused the last upload, where it did: the standard answer to an upload
        has no room for words.
        """
        try:
            refused = self._ask(m.Info(), tries=2).refused
        except LinkError:
            return None
        return LinkError(f"{name}: the board refused the file: {refused}") if refused else None

    def _holds(self, name: str, data: bytes) -> bool:
        """True when the board's file is `data`."""
        try:
            answer = self._ask(m.FileHashChecksum(name=name, type="sha256"), tries=2)
        except LinkError:
            return False
        return answer.output == sha256(data).digest()

    def _upload(self, name: str, data: bytes, progress: Progress | None) -> None:
        off = stalled = 0
        while off < len(data):
            extra = {"len": len(data)} if off == 0 else {}
            _, room = self._client.get_max_cbor_and_data_size(
                m.FileUpload(name=name, off=off, data=b"", **extra)
            )
            block = data[off : off + room]
            request = m.FileUpload(name=name, off=off, data=block, **extra)
            expected = self._ask(request, STORAGE_TIMEOUT_S, tries=3).off
            stalled = stalled + 1 if expected <= off else 0
            if expected > len(data) or stalled > 3:
                raise LinkError(
                    f"{name}: the board asks for byte {expected} again and again, giving up"
                )
            off = expected
            if progress:
                progress(off, len(data))

    # ---- console ------------------------------------------------------------------------------

    def telemetry(self, on: bool) -> None:
        """Switches the JSON lines on or off; read them with `lines`."""
        self._ask(m.Telemetry(on=on), tries=2)

    def command(self, line: str, timeout_s: float = COMPUTE_TIMEOUT_S) -> str:
        """Runs a console command through the shell group and returns its answer; `error: ...`
        raises LinkError.
        """
        answer = self._ask(m.Execute(argv=line.split()), timeout_s).o.strip()
        if answer.startswith("error: "):
            raise LinkError(answer.removeprefix("error: "))
        return answer


def window_bytes(window: np.ndarray) -> tuple[bytes, int]:
    """A window as it travels, and its format: 0 for int16 (little-endian), 1 for int8 (the upper
    byte).
    """
    window = np.asarray(window)
    if window.dtype == np.int8:
        return window.tobytes(), 1
    if window.dtype != np.int16:
        raise ModelError(
            f"a window should be int16 or int8, found {window.dtype}: quantise it first"
        )
    return window.astype("<i2").tobytes(), 0


def _single(value: Any) -> Any:
    return float(np.float32(value)) if isinstance(value, float) else value


def _incomplete(off: int | None, window: np.ndarray) -> str:
    sent = np.asarray(window).nbytes
    return f"the board still waits for byte {off} of the window after all {sent} were sent"


def _parse_labels(text: str, count: int) -> tuple[str, ...]:
    """`0=badminton 1=running` -> ("badminton", "running"); labels may hold spaces."""
    labels: list[str] = []
    for word in text.split(" "):
        if word.startswith(f"{len(labels)}=") and len(labels) < count:
            labels.append(word.split("=", 1)[1])
        elif labels:
            labels[-1] += " " + word
    return tuple(labels)
