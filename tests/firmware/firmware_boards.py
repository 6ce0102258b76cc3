"""Boards under test and the models they get: small random ones and one of the shape of `motion`."""

from __future__ import annotations

import base64
import os
import select
import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from ternio.boards import load_board
from ternio.checkpoint import Checkpoint
from ternio.compile import Options, pack_checkpoint
from ternio.data import InputDescription
from ternio.data.vocabulary import Vocabulary
from ternio.firmware import pio
from ternio.link.virtual import VirtualBoard, VirtualBoards
from ternio.models import Classifier, ClassifierConfig, LanguageModel, LanguageModelConfig
from ternio.tensor import manual_seed


@cache
def blob(name: str = "small", *, seed: int = 0, length: int = 12, width: int = 16, ffn: int = 32):
    """A packed classifier with random weights, three channels and three classes."""
    manual_seed(seed)
    config = ClassifierConfig(
        channels=3, length=length, classes=3, width=width, layers=1, heads=2, ffn=ffn
    )
    return _pack(name, config, ("still", "left turn", "right"))


@cache
def sizeable() -> bytes:
    """A blob of about 20 KB that fits the smallest board."""
    return blob("sizeable", seed=9, width=64, ffn=128)


VOCABULARY = Vocabulary("characters", "".join(sorted("\n\\ .,Iabcdefghijklmnopqrstuvwxyz-'?!ATé")))


@cache
def language() -> bytes:
    """A packed language model with random weights: 40 characters, a context of 16."""
    manual_seed(12)
    config = LanguageModelConfig(
        vocabulary=len(VOCABULARY), context=16, width=32, layers=2, heads=2, kv_heads=1, ffn=48
    )
    checkpoint = Checkpoint(model=LanguageModel(config), name="text", vocabulary=VOCABULARY)
    return pack(checkpoint, Options(adapt=False))


def pack(checkpoint: Checkpoint, options: Options) -> bytes:
    """The bytes of a blob."""
    return pack_checkpoint(checkpoint, options).encode()


@cache
def motion_shaped(options: Options | None = None) -> bytes:
    """A blob of the shape and size of the reference model `motion`, untrained."""
    manual_seed(7)
    config = ClassifierConfig(channels=6, length=100, classes=4)
    return _pack("motion", config, ("badminton", "running", "standing", "walking"), options)


def _pack(
    name: str, config: ClassifierConfig, labels: tuple[str, ...], options: Options | None = None
) -> bytes:
    n = config.channels
    inputs = InputDescription(
        channels=tuple(f"c{i}" for i in range(n)),
        length=config.length,
        mean=np.zeros(n, np.float32),
        std=np.ones(n, np.float32),
        input_scale=np.full(n, 1e-3, np.float32),
        rate_hz=10.0,
    )
    model = Classifier(config)
    checkpoint = Checkpoint(model=model, labels=labels, inputs=inputs, name=name)
    return pack(checkpoint, options or Options())


def window(count: int, seed: int = 0) -> np.ndarray:
    """A window of `count` int16 samples."""
    return np.random.default_rng(seed).integers(-3000, 3000, count).astype(np.int16)


@dataclass
class Console:
    """The text side of a board's port."""

    descriptor: int

    @classmethod
    def open(cls, path: str) -> Console:
        """Opens a port without disturbing what waits there."""
        return cls(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))

    def close(self) -> None:
        os.close(self.descriptor)

    def send(self, data: bytes) -> None:
        while data:
            select.select([], [self.descriptor], [])
            data = data[os.write(self.descriptor, data) :]

    def lines(self, count: int = 1, timeout_s: float = 20.0) -> list[str]:
        """The next `count` lines, without their CR LF."""
        data, end = b"", time.monotonic() + timeout_s
        while data.count(b"\n") < count:
            left = end - time.monotonic()
            assert left > 0, f"only {data!r} came within {timeout_s} s"
            if select.select([self.descriptor], [], [], left)[0]:
                data += os.read(self.descriptor, 1)
        return [line.rstrip("\r") for line in data.decode().split("\n")[:count]]

    def answer(self) -> bytes:
        """The next SMP message, its lines of base64 decoded and joined; text lines are skipped."""
        data = b""
        while len(data) < 2 or len(data) - 2 < int.from_bytes(data[:2], "big"):
            line = self.lines()[0].encode()
            if line[:2] in (b"\x06\t", b"\x04\x14"):
                data += base64.b64decode(line[2:])
        return data[2:-2]

    def ask(self, line: str) -> str:
        """Sends a command and returns its answer."""
        self.send(line.encode() + b"\r\n")
        return self.lines()[0]


def start(boards: VirtualBoards, name: str, model=None) -> VirtualBoard:
    """Starts a virtual board with a fresh store; `model` is a file that goes into the image."""
    board = load_board(name)
    (boards.folder / f"{name}.flash").unlink(missing_ok=True)
    image = pio.build_native() if board.is_native else pio.build(board, model).elf
    return boards.start(board, image)
