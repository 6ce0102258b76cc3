"""Hostile input: the native board under address and undefined-behaviour checks eats random lines,
damaged frames, valid frames with wild content and damaged models, and goes on answering."""

from __future__ import annotations

import base64
import binascii
import random
import shutil
import struct
import subprocess

import cbor2
import pytest
from firmware_boards import blob, language

from ternio.firmware import pio

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

GROUPS = {0: (0, 5, 6, 7, 9), 2: (0, 1), 8: (0, 1, 2, 3, 4), 9: (0,), 64: range(11), 77: (0,)}
KEYS = ["off", "len", "data", "name", "type", "d", "format", "argv", "x", "fmt", "label", "lr"]
KEYS += [
    "text",
    "more",
    "n",
    "temperature",
    "top_k",
    "top_p",
    "hop",
    "beta1",
    "eps",
    "seed",
    "sgd",
    "on",
    "clip",
    "unknown",
]
PLAUSIBLE = {
    "off": [0, 0, 900, 36, 2**32 - 1],
    "len": [0, 64, 900, 2**20],
    "data": [bytes(64), blob("victim")[:900], b""],
    "name": ["/model", "/adapter", "ternio"],
    "type": ["crc32", "sha256"],
    "format": ["sn", "a", "b"],
    "x": [bytes(72), bytes(36), b"\x80\x7f" * 36, bytes(73)],
    "fmt": [0, 1, 2],
    "label": [0, 2, 3],
    "lr": [0.005, 0.0, -1.0, 1e38],
    "eps": [1e-8, 0.0],
    "on": [True, False],
    "text": [b"abc", "é".encode(), b"\xc3", b"\n" * 40],
    "more": [True, False],
    "n": [0, 1, 30, 2**32 - 1],
    "temperature": [0.0, 0.8, -1.0, 1e39, float("nan")],
    "top_k": [0, 1, 5, 2**31],
    "top_p": [0.0, 0.5, 1.0, -3.0],
    "hop": [0, 1, 12, 13],
}
LINES = ["info", "labels", "infer", "adapt 1", "adapter", "adapter save", "adapter reset", "stats"]
LINES += ["put 0 1 2 3", "put 35 -7", "put 99999 1", "put -1 1", "telemetry on", "help", "adapt"]
LINES += [
    "every 4",
    "frame 1 2 3",
    "frame 1 2 3 4",
    "generate 3 prompt ab\\n",
    "generate 9 top_k 3",
]
LINES += ["generate 4 temperature 0.7 top_p .5 seed 3", "generate 2 prompt", "generate 1 top_p x"]


def frame(message: bytes) -> bytes:
    """An SMP message as lines of base64."""
    crc = struct.pack(">H", binascii.crc_hqx(message, 0))
    text = base64.b64encode(struct.pack(">H", len(message) + 2) + message + crc)
    lines = [text[i : i + 124] for i in range(0, len(text), 124)]
    return b"".join(
        (b"\x04\x14" if i else b"\x06\x09") + line + b"\n" for i, line in enumerate(lines)
    )


def message(op: int, group: int, command: int, body: bytes, version: int = 1) -> bytes:
    return struct.pack(">BBHHBB", op | version << 3, 0, len(body), group, 7, command) + body


def upload(name: str, data: bytes) -> bytes:
    """All frames of an upload."""
    parts = []
    for off in range(0, len(data), 900):
        body = {"off": off, "data": data[off : off + 900], "name": name, "len": len(data)}
        parts.append(frame(message(2, 8, 0, cbor2.dumps(body))))
    return b"".join(parts)


class Attacker:
    """Random input with a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0):
        r = self.random
        kinds = [
            lambda: r.choice([0, 1, 23, 24, 255, 65536, 2**31, 2**32, 2**63, -1, -(2**40)]),
            lambda: r.randbytes(r.choice([0, 1, 2, 3, 71, 72, 300])),
            lambda: r.choice(
                ["/model", "/adapter", "ternio", "crc32", "sha256", "a", "", "é" * 50]
            ),
            lambda: r.choice([0.0, 0.005, -1.0, 1e39, float("nan"), float("inf")]),
            lambda: r.choice([True, False, None]),
            lambda: r.choice(LINES).split(" "),
            lambda: ["word" * r.randrange(9)] * r.randrange(200),
            lambda: {"deep": self.value(depth + 1)} if depth < 4 else 1,
            lambda: cbor2.CBORTag(5, 1),
        ]
        return r.choice(kinds)()

    def body(self, group: int) -> bytes:
        r = self.random
        keys = r.sample(KEYS, r.randrange(6))
        body = {key: self.value() for key in keys} if r.random() < 0.5 else {}
        if r.random() < 0.7:
            body |= {key: r.choice(values) for key, values in PLAUSIBLE.items() if r.random() < 0.6}
            body |= {"argv": r.choice(LINES).split(" ")} if group == 9 else {}
        data = bytearray(cbor2.dumps(body))
        if r.random() < 0.1:
            data = bytearray(
                r.choice([b"\x81", b"\x9f", b"\xbf", b"\xd8\x18"]) * r.randrange(1, 1400)
            )
        for _ in range(r.choice([0] * 6 + [1, 3])):
            if data:
                data[r.randrange(len(data))] = r.randrange(256)
        return bytes(data[: r.choice([len(data), len(data), len(data) // 2])])

    def one_frame(self) -> bytes:
        r = self.random
        group = r.choice([*GROUPS, 64, 64, 8, 8])
        command = r.choice(list(GROUPS[group]))
        if group == 0 and command == 5 and r.random() < 0.95:
            command = 0
        data = bytearray(
            frame(
                message(
                    r.choice([0, 2, 2, 2, 5]),
                    group,
                    command,
                    self.body(group),
                    r.choice([0, 1, 1, 1, 1, 2]),
                )
            )
        )
        for _ in range(r.choice([0] * 9 + [1, 2])):
            data[r.randrange(len(data))] = r.randrange(256)
        return bytes(data)

    def piece(self) -> bytes:
        r = self.random
        damaged = bytearray(blob("victim"))
        damaged[r.randrange(len(damaged))] ^= 1 << r.randrange(8)
        return r.choice(
            [
                self.one_frame,
                self.one_frame,
                self.one_frame,
                lambda: r.choice(LINES).encode() + r.choice([b"\n", b"\r\n", b"\0\n"]),
                lambda: r.randbytes(r.randrange(700)) + b"\n",
                lambda: b"\x06\x09" + base64.b64encode(r.randbytes(r.randrange(90))) + b"\n",
                lambda: upload("/model", bytes(damaged)) if r.random() < 0.2 else b"\n",
                lambda: upload("/model", blob("victim")) if r.random() < 0.1 else b"\n",
                lambda: upload("/model", language()) if r.random() < 0.1 else b"\n",
            ]
        )()


def answers(output: bytes) -> list[bytes]:
    """The SMP messages among a board's output."""
    found, text = [], b""
    for line in output.split(b"\n"):
        if line[:2] in (b"\x06\x09", b"\x04\x14"):
            text = line[2:] if line[0] == 6 else text + line[2:]
            data = base64.b64decode(text)
            if len(data) == 2 + int.from_bytes(data[:2], "big"):
                assert binascii.crc_hqx(data[2:-2], 0) == int.from_bytes(data[-2:], "big")
                found.append(data[2:-2])
    return found


@needs_cc
def test_errors_by_version(tmp_path):
    """Version 2 names group and number, version 1 has one number; a later version is refused."""
    asked = [message(2, 64, 1, cbor2.dumps({}), version) for version in (0, 1, 2)]
    asked += [message(0, 77, 0, b"\xa0"), message(2, 0, 0, b"\xa1\x61d\x01"), b"\x0a\0\0\1\0\0\7\0"]
    board = subprocess.run(
        [pio.build_native(), "--stdio"], input=b"".join(map(frame, asked)), capture_output=True
    )
    said = answers(board.stdout)
    assert [m[0] for m in said] == [3, 3 | 1 << 3, 3 | 2 << 3, 1 | 1 << 3, 3 | 1 << 3]
    assert [m[1:2] + m[4:8] for m in said[:3]] == [b"\0" + bytes([0, 64, 7, 1])] * 3
    reason = "no model on this board"
    assert [cbor2.loads(m[8:]) for m in said] == [
        {"rc": 64, "rsn": reason},
        {"err": {"group": 64, "rc": 64}, "rsn": reason},
        {"rc": 13},
        {"rc": 8},
        {"rc": 3},
    ]


@needs_cc
@pytest.mark.parametrize("seed", range(4))
def test_no_input_breaks_the_board(tmp_path, seed):
    program = pio.build_native(sanitize=True)
    attacker = Attacker(seed)
    attack = upload("/model", blob("victim")) + b"".join(attacker.piece() for _ in range(1500))
    board = subprocess.run(
        [program, "--stdio", "--flash", tmp_path / "flash"],
        input=attack + b"\n\nhelp\n",
        capture_output=True,
        timeout=120,
    )
    assert board.returncode == 0, board.stderr.decode()[-2000:]
    assert board.stderr == b""
    assert board.stdout.rstrip().splitlines()[-1].startswith(b"commands: ")
    assert b"ternio 0.1.0 on native: no model, storage file" in board.stdout
