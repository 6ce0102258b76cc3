"""The runtime as a shared library, behind thin wrappers that show statuses and the arena."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cffi
import numpy as np
from device_assembler import STEP, Assembler, instruction

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "device" / "src").rglob("*.c"))
FLAGS = ["-std=c99", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/device/include"]


def compile_c(target: Path, *arguments: str, compiler: tuple[str, ...] = ("cc",)) -> Path:
    """Compiles the runtime together with `arguments` into `target`."""
    command = [*compiler, *FLAGS, *arguments, *map(str, SOURCES), "-o", str(target)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return target


def aligned(size: int) -> np.ndarray:
    """Zeroed bytes at a 16-byte boundary."""
    room = np.zeros(size + 16, np.uint8)
    start = -room.ctypes.data % 16
    return room[start : start + size]


class Library:
    """The functions of tr.h, and their types, in one loaded library."""

    def __init__(self, path: Path):
        header = (ROOT / "device" / "include" / "tr.h").read_text()
        self.ffi = cffi.FFI()
        self.ffi.cdef(header.split("/* cdef-begin */")[1].split("/* cdef-end */")[0])
        self.c = self.ffi.dlopen(str(path))

    def pointer(self, array: np.ndarray, kind: str = "void *"):
        return self.ffi.cast(kind, array.ctypes.data)

    def open(self, blob: bytes):
        """(status name, model struct); the struct keeps the blob alive."""
        room = aligned(len(blob))
        room[:] = np.frombuffer(blob, np.uint8)
        model = self.ffi.new("tr_model *")
        status = self.c.tr_model_open(model, self.pointer(room), len(blob))
        self.kept = (room, model)
        return self.name(status), model

    def name(self, status: int) -> str:
        return self.ffi.typeof("tr_status").elements[status]


class Machine:
    """A blob from an assembler, loaded into an arena that a test can look into."""

    def __init__(self, library: Library, assembler: Assembler):
        self.lib, self.asm = library, assembler
        status, self.model = library.open(assembler.build())
        assert status == "TR_OK", status
        self.blob = library.kept
        self.bytes = aligned(max(self.model.infer_arena, self.model.adapt_arena))
        self.session = library.ffi.new("tr_session *")
        size = len(self.bytes)
        status = library.c.tr_session_init(
            self.session, self.model, library.pointer(self.bytes), size
        )
        assert status == 0

    def view(self, operand: int, count: int, dtype="f4", offset_bytes: int = 0) -> np.ndarray:
        """Arena contents at an operand word, shared."""
        start = 4 * (operand & (STEP - 1)) + offset_bytes
        return self.bytes[start : start + count * np.dtype(dtype).itemsize].view(dtype)

    def put(self, operand: int, values) -> None:
        values = np.ascontiguousarray(values, "f4").ravel()
        self.view(operand, values.size)[:] = values

    def infer(self, window=None) -> np.ndarray:
        count = self.asm.channels * self.asm.length
        window = np.zeros(count, "i2") if window is None else np.ascontiguousarray(window, "i2")
        logits = self.lib.ffi.new("const float **")
        status = self.lib.c.tr_infer(
            self.session, self.lib.pointer(window, "const int16_t *"), window.size, logits
        )
        assert status == 0
        return self.view(self.asm.logits, self.asm.outputs).copy()

    def feed(self, token: int) -> tuple[str, np.ndarray]:
        """One token of a stream: the status, and the logits."""
        logits = self.lib.ffi.new("const float **")
        status = self.lib.c.tr_step(self.session, token, logits)
        return self.lib.name(status), self.view(self.asm.logits, self.asm.outputs).copy()

    def begin(self, **settings) -> str:
        config = self.lib.ffi.new("tr_adapt_config *", self.lib.c.tr_adapt_defaults())
        for key, value in settings.items():
            setattr(config, key, value)
        return self.lib.name(self.lib.c.tr_adapt_begin(self.session, config))

    def step(self, window=None, label: int = 0) -> tuple[str, float]:
        count = self.asm.channels * self.asm.length
        window = np.zeros(count, "i2") if window is None else np.ascontiguousarray(window, "i2")
        loss = self.lib.ffi.new("float *")
        status = self.lib.c.tr_adapt_step(
            self.session, self.lib.pointer(window, "const int16_t *"), window.size, label, loss
        )
        return self.lib.name(status), loss[0]

    def state(self, block: int) -> np.ndarray:
        """Block 0 .. 3 of the adaptation state: factors, gradients, first and second moments."""
        start = self.asm.state + block * self.asm.block_bytes
        return self.bytes[start : start + 4 * self.asm.factors].view("f4")

    def export(self) -> bytes:
        out = aligned(self.lib.c.tr_adapter_bytes(self.model))
        used = self.lib.ffi.new("uint32_t *")
        status = self.lib.c.tr_adapter_export(self.session, self.lib.pointer(out), len(out), used)
        assert status == 0 and used[0] == len(out)
        return out.tobytes()


def backward_machine(library: Library, asm: Assembler, code, puts=(), **settings) -> Machine:
    """Has run `code` in an ADPT program, ahead of a loss over zero logits and the optimiser.

    Without other settings: SGD without momentum, so that the first moments hold the gradients.
    """
    if not asm.adapters:
        asm.adapter(2, 2, 1)
    gradient = asm.room(asm.outputs)
    loss = instruction("CROSS_ENTROPY", gradient, asm.logits, n=(asm.outputs,))
    asm.infer = [instruction("ZERO", asm.logits, n=(asm.outputs, 1))]
    asm.adapt = [*code, loss, instruction("OPTIMIZE")]
    machine = Machine(library, asm)
    settings = settings or {"optimizer": library.c.TR_SGD, "lr": 1.0, "beta1": 0.0}
    assert machine.begin(**settings) == "TR_OK"
    for operand, values in puts:
        machine.put(operand, values)
    machine.factors = machine.state(0).copy()
    assert machine.step()[0] == "TR_OK"
    return machine
