"""The same numbers everywhere: one checksum of all logits of `motion` over its test set, and one of
the text that `text` writes, on every core and on this computer."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from firmware_boards import pack, start

from ternio import data
from ternio.boards import load_board
from ternio.checkpoint import Checkpoint
from ternio.compile import Options
from ternio.compile.fit import input_room
from ternio.link.client import BoardClient
from ternio.models import Classifier, ClassifierConfig, LanguageModel, LanguageModelConfig
from ternio.runtime import Model, Sampler, Session
from ternio.tensor import manual_seed

BOARDS = ["native", "microbit", "netduinoplus2", "mps2_an500", "mps3_an547"]
TOKENS, PROMPT = 200, "The value of the expression "  # with the prompt more than a context of 128
SETTINGS = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "seed": 2024},
}

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(
        any(shutil.which(x) is None for x in ("cc", "arm-none-eabi-gcc", "qemu-system-arm")),
        reason="needs compilers and QEMU",
    ),
]


def packed(checkpoint: Checkpoint, name: str) -> bytes:
    """A blob as `ternio pack` makes it for a board: weights in the layout that its core likes. Keys
    and values in int8 for all of them, since that is a choice about numbers."""
    options = Options(adapt=False, kv="int8")
    if name:
        board = load_board(name)
        room, merge = input_room(checkpoint.config, board), board.merges_rows
        options = replace(options, arena_limit=room, merge_rows=merge)
    return pack(checkpoint, options)


@cache
def motion(board: str = "") -> bytes:
    """The reference model's shape, input and classes, packed for a board; weights as they are
    before training."""
    train, _ = data.basic_motions()
    inputs = data.InputDescription.from_training(train)
    manual_seed(5)
    model = Classifier(ClassifierConfig(len(inputs.channels), inputs.length, len(train.labels)))
    return packed(Checkpoint(model, train.labels, inputs, "motion"), board)


@cache
def text(board: str = "") -> bytes:
    """The reference language model's shape and vocabulary, untrained as well."""
    vocabulary = data.load_corpus("text", 128, "characters").vocabulary
    manual_seed(6)
    model = LanguageModel(LanguageModelConfig(vocabulary=len(vocabulary)))
    return packed(Checkpoint(model, name="text", vocabulary=vocabulary), board)


@cache
def windows() -> list[np.ndarray]:
    """The 40 windows of the test set as a board gets them."""
    scale = Model(motion()).input_scale
    return list(data.quantize_window(data.basic_motions()[1].x, scale))


def checksum(pieces) -> str:
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def written_here(settings: dict) -> str:
    """Checksum of the text as the runtime writes it in this process."""
    model = Model(text())
    tokens = Session(model).generate(model.tokens(PROMPT), Sampler(**settings))
    return checksum([model.text([next(tokens) for _ in range(TOKENS)]).encode()])


def written_there(client: BoardClient, settings: dict) -> str:
    client.prompt(PROMPT)
    return checksum(client.generate(TOKENS, **settings))


def on_board(virtual, tmp_path, name: str, blob: bytes, ask) -> str:
    """What `ask` gets from a fresh board with the blob built into its image, where it has one."""
    board, path = load_board(name), tmp_path / "model.tern"
    path.write_bytes(blob)
    running = start(virtual, name, None if board.is_native else path)
    with BoardClient(running.port) as client:
        if board.is_native:
            client.upload_model(blob)
        answer = ask(client)
    virtual.stop(running.name)
    return answer


def test_logits_of_motion_are_the_same_on_every_core(virtual, tmp_path):
    assert len({motion(name) for name in BOARDS}) > 1  # layouts of weights
    session = Session(Model(motion()))
    here = checksum(session.infer(window).tobytes() for window in windows())
    there = {
        name: on_board(
            virtual,
            tmp_path,
            name,
            motion(name),
            lambda client: checksum(client.infer(w).logits.tobytes() for w in windows()),
        )
        for name in BOARDS
    }
    assert len(windows()) == 40
    assert there == dict.fromkeys(BOARDS, here)


def test_characters_of_text_are_the_same_on_every_core(virtual, tmp_path):
    """All but the Cortex-M0, whose flash and RAM are too small for the model."""
    here = {how: written_here(settings) for how, settings in SETTINGS.items()}
    assert here["greedy"] != here["sampled"]
    there = {
        name: on_board(
            virtual,
            tmp_path,
            name,
            text(name),
            lambda client: {how: written_there(client, s) for how, s in SETTINGS.items()},
        )
        for name in BOARDS
        if name != "microbit"
    }
    assert there == dict.fromkeys(there, here)
