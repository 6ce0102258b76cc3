"""A board for tests: answers SMP and console lines on a pseudo-terminal by firmware/PROTOCOL.md.

Written from the protocol's text, without the `smp` package, so that it checks the client's side.
Its `model` scores class k by the sum of channel k. Faults can be switched on: lost answers, damaged
answers, text between frames, late answers.
"""

from __future__ import annotations

import base64
import binascii
import os
import select
import struct
import termios
import threading
import time
import zlib

import cbor2
import numpy as np

MODEL_BYTES = 16384


class FakeBoard:
    """`port` is the path to open. Fields may be changed while it runs."""

    def __init__(self, buf_size: int = 512) -> None:
        self.buf_size = buf_size
        self.channels, self.length, self.labels = 3, 20, ["sit", "walk", "run"]
        self.name = "fake"
        self.has_model = True
        self.model = bytes(range(256)) * 16
        self.slot_bytes = MODEL_BYTES
        self.adapter: bytes | None = None
        self.adapting = False
        self.steps = 0
        self.telemetry = False
        self.window = bytearray(2 * self.channels * self.length)
        self.filled = 0
        self.upload: dict | None = None
        self.requests: list[tuple[int, int, dict]] = []
        # faults
        self.lose = 0
        self.damage = 0
        self.noise = b""
        self.stale: bytes = b""
        self.lose_upload_after: int | None = None
        self.mute = False
        self.garbage: bytes | None = None
        self._master, self._slave = os.openpty()
        mode = termios.tcgetattr(self._slave)
        mode[0] = mode[1] = mode[3] = 0
        termios.tcsetattr(self._slave, termios.TCSANOW, mode)
        self.port = os.ttyname(self._slave)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)

    def __enter__(self) -> FakeBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- bytes ----------------------------------------------------------------------------

    def _run(self) -> None:
        pending, frame = b"", b""
        while not self._stop.is_set():
            if not select.select([self._master], [], [], 0.02)[0]:
                continue
            pending += os.read(self._master, 4096)
            *lines, pending = pending.split(b"\n")
            for line in lines:
                if line[:2] == b"\x06\x09":
                    frame = base64.b64decode(line[2:])
                elif line[:2] == b"\x04\x14" and frame:
                    frame += base64.b64decode(line[2:])
                else:
                    self._text_line(line.strip(b"\r").decode())
                    continue
                size = struct.unpack_from(">H", frame)[0] if len(frame) >= 2 else 0
                if size and len(frame) - 2 >= size:
                    body, frame = frame[2 : 2 + size], b""
                    if len(body) + 2 <= self.buf_size and binascii.crc_hqx(body, 0) == 0:
                        self._frame(body[:-2])

    def write(self, data: bytes) -> None:
        """Console output of the board."""
        os.write(self._master, data)

    def write_all(self, data: bytes) -> None:
        """Console output of any length; returns when all of it is in the line."""
        while data:
            data = data[os.write(self._master, data[:1024]) :]

    def _send(self, message: bytes) -> None:
        data = message + struct.pack(">H", binascii.crc_hqx(message, 0))
        if self.damage:
            self.damage -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        text = base64.b64encode(struct.pack(">H", len(data)) + data)
        parts = [text[i : i + 124] for i in range(0, len(text), 124)]
        for i, part in enumerate(parts):
            self.write((b"\x04\x14" if i else b"\x06\x09") + part + b"\n")

    # ---- frames ---------------------------------------------------------------------------

    def _frame(self, message: bytes) -> None:
        op, _, _, group, seq, command = struct.unpack(">BBHHBB", message[:8])
        request = cbor2.loads(message[8:])
        self.requests.append((group, command, request))
        if self.noise:
            self.write(self.noise)
        if self.stale:
            self.write(self.stale)
            self.stale = b""
        if self.mute:
            return
        if self.garbage is not None:
            size = len(self.garbage)
            head = struct.pack(">BBHHBB", (op & 7) + 1 | op & 0x18, 0, size, group, seq, command)
            self._send(head + self.garbage)
            return
        answer = self._answer(op & 7, group, command, request)
        if self.lose:
            self.lose -= 1
            return
        if answer is not None:
            body = cbor2.dumps(answer)
            version = op & 0x18
            head = struct.pack(">BBHHBB", (op & 7) + 1 | version, 0, len(body), group, seq, command)
            self._send(head + body)
        if (group, command) == (0, 5):
            time.sleep(0.05)
            self.adapting = False
            self.write(
                b"\r\nternio 0.1.0 on fake: model demo, 3 classes, storage ram; type help\r\n"
            )

    def _answer(self, op: int, group: int, command: int, r: dict) -> dict | None:
        if group == 0:
            answers = {0: {"r": r.get("d")}, 5: {}, 6: {"buf_size": self.buf_size, "buf_count": 1}}
            return answers.get(command, {"err": {"group": 0, "rc": 8}})
        if group == 8 and command == 0:
            return self._upload(r) if op == 2 else self._download(r)
        if group == 9:
            return {"o": self._command(" ".join(r["argv"])), "ret": 0}
        if group == 64:
            return self._ternio(command, r)
        return {"err": {"group": 0, "rc": 8}}

    @staticmethod
    def _fail(rc: int, reason: str = "") -> dict:
        return {"err": {"group": 64, "rc": rc}} | ({"rsn": reason} if reason else {})

    def _ternio(self, command: int, r: dict) -> dict:
        if command == 0:
            return self._info()
        if command == 6:
            self.telemetry = r["on"]
            return {"on": r["on"]}
        if not self.has_model:
            return self._fail(64)
        if command in (1, 3):
            return self._window(command, r)
        if command == 2:
            self.adapting, self.steps = True, 0
            return {"steps": 0, "floats": 4}
        if command == 4:
            if not self.adapting:
                return self._fail(69)
            self.adapter, self.adapting = b"TADP" + bytes([self.steps]) * 60, False
            return {"steps": self.steps, "bytes": 64, "slot": "A"}
        if command == 5:
            self.adapter, self.adapting, self.steps = None, False, 0
            return {}
        return self._fail(65)

    def _info(self) -> dict:
        base = {
            "board": self.name,
            "version": "0.1.0",
            "storage": "ram",
            "slot": "A",
            "arena": 1000,
            "slot_bytes": self.slot_bytes,
            "novelty": [1, 2],
        }
        if not self.has_model:
            return base | {"model": "", "reason": "the slots are empty"}
        return base | {
            "model": "demo",
            "digest": self.model[0x10:0x30],
            "bytes": len(self.model),
            "channels": self.channels,
            "length": self.length,
            "outputs": 3,
            "labels": self.labels[:2],
            "scale": np.array([0.5, 1, 2], "<f4").tobytes(),
            "rate_hz": 25.0,
            "infer_arena": 100,
            "adapt_arena": 200,
            "floats": 4,
            "adapter": "training" if self.adapting else "attached" if self.adapter else "none",
            "steps": self.steps,
        }

    def _window(self, command: int, r: dict) -> dict:
        if "x" in r:
            off, x = r.get("off", 0), r["x"]
            total = len(self.window) >> r.get("fmt", 0)
            if off + len(x) > total:
                return self._fail(65, "the window has fewer bytes")
            if off == 0:
                self.filled = 0
            if off != self.filled:
                return {"off": self.filled}
            raw = np.frombuffer(x, "<i1" if r.get("fmt") else "<i2").astype("<i2")
            raw = raw * 256 if r.get("fmt") else raw
            start = off << r.get("fmt", 0)
            self.window[start : start + 2 * len(raw)] = raw.astype("<i2").tobytes()
            self.filled = off + len(x)
            if self.filled < total:
                return {"off": self.filled}
        logits = self.logits()
        index = int(logits.argmax())
        if command == 1:
            if self.telemetry:
                self.write(b'{"event":"infer","class":"%s"}\r\n' % self.labels[index].encode())
            return {"logits": logits.tobytes(), "index": index, "us": 1234}
        if not self.adapting:
            return self._fail(17)
        self.steps += 1
        return {"loss": 1.0 / self.steps, "step": self.steps, "us": 777}

    def logits(self) -> np.ndarray:
        values = np.frombuffer(bytes(self.window), "<i2").reshape(self.length, self.channels)
        return (values.astype(np.float32).sum(0) / np.float32(32768)).astype("<f4")

    # ---- files ----------------------------------------------------------------------------

    def _upload(self, r: dict) -> dict | None:
        off, data = r["off"], r["data"]
        if r["name"] not in ("/model", "/adapter"):
            return self._fail(71)
        up = self.upload
        if off == 0 and up and up["len"] == r["len"] and up["data"][: len(data)] == data:
            return {"off": len(up["data"])}
        if off == 0:
            if r["len"] > self.slot_bytes:
                return self._fail(68, f"{r['len']} bytes, the slot has {self.slot_bytes}")
            self.upload = {"name": r["name"], "len": r["len"], "data": b""}
        up = self.upload
        if up is None or up["name"] != r["name"]:
            return self._fail(65)
        if off != len(up["data"]):
            return {"off": len(up["data"])}
        if self.lose_upload_after is not None and off + len(data) > self.lose_upload_after:
            return None
        up["data"] += data
        if len(up["data"]) == up["len"]:
            self.upload = None
            if up["name"] == "/adapter":
                self.adapter = up["data"]
            elif up["data"][:4] == b"TERN":
                self.model, self.has_model = up["data"], True
            elif zlib.crc32(up["data"][4:]) != int.from_bytes(up["data"][:4], "little"):
                return self._fail(6, "CRC-32 wrong")
            else:
                self.model, self.has_model = up["data"], True
        return {"off": len(up["data"])}

    def _download(self, r: dict) -> dict:
        data = {"/model": self.model, "/adapter": self.adapter}.get(r["name"])
        if data is None:
            return self._fail(69 if r["name"] == "/adapter" else 71)
        part = data[r["off"] : r["off"] + self.buf_size - 64]
        return {"off": r["off"], "data": part} | ({"len": len(data)} if r["off"] == 0 else {})

    # ---- console --------------------------------------------------------------------------

    def _text_line(self, line: str) -> None:
        if line.strip():
            self.write(self._command(line).encode() + b"\r\n")

    def _command(self, line: str) -> str:
        if line == "labels":
            return " ".join(f"{i}={label}" for i, label in enumerate(self.labels))
        if line == "info":
            return "board=fake model=demo"
        return f"error: unknown command {line.split()[0]}"


def model_file(size: int = 1000, seed: int = 0) -> bytes:
    """A file that the fake board takes as a model: CRC-32 of what follows, then noise."""
    body = np.random.default_rng(seed).integers(0, 256, size - 4, dtype=np.uint8).tobytes()
    return zlib.crc32(body).to_bytes(4, "little") + body
