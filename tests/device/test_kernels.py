"""The ternary kernels: against integers in NumPy on the host, against their plain C definition on
every emulated core, and within their instruction budgets."""

from __future__ import annotations

import ctypes
import dataclasses
import subprocess
from pathlib import Path

import bench_kernels
import numpy as np
import pytest
from insn import images, wu

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "kernels" / "kernel_cases.c"
KERNEL_C = [path for path in images.KERNEL_SOURCES if path.suffix == ".c"]
HOST_FLAGS = ["-std=c99", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
HOST_FLAGS += [f"-I{ROOT / 'device/include'}", f"-I{ROOT / 'device/src'}", f"-I{images.HERE}"]
SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"]

# Weights that fit a machine's RAM beside the other buffers; more weights, more of the large shapes.
WEIGHT_BYTES = {"m0": 4096, "m4": 32768, "m7": 32768, "m55": 32768}

# Instructions per multiply-accumulate at 128 x 128, activations prepared and sums scaled to float.
FORWARD_BUDGET = {"m0": 1.60, "m4": 0.92, "m7": 0.92, "m55": 0.27}
WD_BUDGET = 0.72
TRANSPOSED_BUDGET = {"m0": 3.2, "m4": 1.45, "m7": 1.45, "m55": 0.30}


def compile_host(sources: list[Path], output: Path, *flags: str) -> Path:
    """Compiles for this computer; a warning is an error."""
    command = ["gcc", *HOST_FLAGS, *flags, *map(str, sources), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    """All kernels of this computer."""
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    return ctypes.CDLL(str(compile_host(KERNEL_C, path, "-shared", "-fPIC")))


@pytest.fixture(scope="module")
def counter(tmp_path_factory) -> images.Counter:
    """The counting plugin, or what stands in for it."""
    return images.Counter(tmp_path_factory.mktemp("counter"))


@pytest.fixture(params=list(images.MACHINES))
def machine(request) -> images.Machine:
    """One emulated machine after the other."""
    missing = images.toolchain_missing()
    if missing:
        pytest.skip(f"{missing} is not on PATH")
    return images.MACHINES[request.param]


def aligned(count: int, dtype) -> np.ndarray:
    """Zeros that start at a multiple of 16 bytes."""
    raw = np.zeros(count * np.dtype(dtype).itemsize + 16, np.uint8)
    start = -raw.ctypes.data % 16
    return raw[start : start + count * np.dtype(dtype).itemsize].view(dtype)


def forward(function, trits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """W x by one of the C functions."""
    rows, cols = trits.shape
    padded = aligned(-(-cols // 64) * 64, np.int8)
    padded[:cols] = x
    packed = np.frombuffer(wu.pack(trits), np.uint8)
    sums, scratch = aligned(rows, np.int32), aligned(max(2 * len(padded), 1408), np.uint8)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (packed, padded, sums, scratch)]
    function(*pointers[:3], ctypes.c_uint32(rows), ctypes.c_uint32(cols), pointers[3])
    return sums


def transposed(function, trits: np.ndarray, e: np.ndarray) -> np.ndarray:
    """W^T e by one of the C functions, panel by panel."""
    rows, cols = trits.shape
    rows8, cols16 = -(-rows // 8) * 8, -(-cols // 16) * 16
    errors, scratch = aligned(rows8 + 8, np.int16), aligned(1152, np.uint8)
    errors[:rows] = e
    packed = np.frombuffer(wu.pack(trits), np.uint8)
    result = np.zeros(cols16, np.int64)
    for first in range(0, cols16, 64):
        width = min(64, cols16 - first)
        sums = aligned(width, np.int32)
        panel = packed[rows8 * first // 4 :]
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (panel, errors, sums, scratch)]
        function(*pointers[:3], ctypes.c_uint32(rows8), ctypes.c_uint32(width // 4), pointers[3])
        result[first : first + width] = sums
    return result[:cols]


@pytest.mark.parametrize("suffix", ["", "_plain", "_portable"])
def test_every_column_count_gives_the_integers_of_numpy(library, suffix):
    rng = np.random.default_rng(7)
    for cols in range(1, 201):
        rows = int(rng.integers(1, 40))
        trits = wu.random_trits(rows, cols, cols)
        x = rng.integers(-127, 128, cols)
        e = rng.integers(-32767, 32768, rows)
        y = forward(library[f"tr_kernel_forward{suffix}"], trits, x)
        g = transposed(library[f"tr_kernel_transposed{suffix}"], trits, e)
        assert np.array_equal(y, trits.astype(np.int64) @ x), (rows, cols)
        assert np.array_equal(g, trits.T.astype(np.int64) @ e), (rows, cols)


@pytest.mark.parametrize("suffix", ["", "_portable"])
@pytest.mark.parametrize(("rows", "cols"), [(9, 2048), (1031, 130), (513, 4096), (64, 1088)])
def test_sums_at_their_bounds_are_exact(library, suffix, rows, cols):
    for sign in (1, -1):
        full = np.full((rows, cols), sign, np.int8)
        x = np.full(cols, 127)
        x[1::2] = -127
        full[: rows // 2, 1::2] = -sign
        e = np.full(rows, -32767)
        assert np.array_equal(
            forward(library[f"tr_kernel_forward{suffix}"], full, x), full.astype(np.int64) @ x
        )
        assert np.array_equal(
            transposed(library[f"tr_kernel_transposed{suffix}"], full, e),
            full.T.astype(np.int64) @ e,
        )


def test_transposed_sums_near_the_end_of_int32_are_exact(library):
    rows = 65528
    trits = np.ones((rows, 16), np.int8)
    trits[:, 1] = -1
    e = np.full(rows, 32767)
    expected = [rows * 32767, -rows * 32767]
    assert transposed(library.tr_kernel_transposed, trits, e)[:2].tolist() == expected


def test_cases_are_clean_under_sanitizers(tmp_path):
    program = compile_host(
        [*KERNEL_C, CASES, images.HERE / "guest.c"],
        tmp_path / "cases",
        *SANITIZERS,
        "-DWEIGHT_BYTES=65536",
    )
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.emulator
def test_cases_agree_with_the_plain_definition_on_the_core(machine, tmp_path):
    size = f"-DWEIGHT_BYTES={WEIGHT_BYTES[machine.name]}"
    host = compile_host([*KERNEL_C, CASES, images.HERE / "guest.c"], tmp_path / "cases", size)
    expected = subprocess.run([str(host)], capture_output=True, text=True).stdout
    elf = images.build_image(
        machine, [*images.KERNEL_SOURCES, CASES], tmp_path / f"{machine.name}.elf", [size]
    )
    assert expected.endswith("ok\n")
    assert images.run_image(machine, elf) == expected


# Cores and float conventions that share the kernels above, on a machine that runs their code.
RELATIVES = {
    "m3": ("m4", ("-mcpu=cortex-m3", "-mfloat-abi=soft")),
    "m4-soft": ("m4", ("-mcpu=cortex-m4", "-mfloat-abi=soft")),
    "m4-softfp": ("m4", ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=softfp")),
    "m23": ("m55", ("-mcpu=cortex-m23", "-mfloat-abi=soft")),
    "m33": ("m55", ("-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard")),
    "m55-no-mve": ("m55", ("-mcpu=cortex-m55+nomve", "-mfloat-abi=hard")),
}


@pytest.mark.emulator
@pytest.mark.parametrize("name", RELATIVES)
def test_cases_agree_on_related_cores(name, tmp_path):
    missing = images.toolchain_missing()
    if missing:
        pytest.skip(f"{missing} is not on PATH")
    base, flags = RELATIVES[name]
    machine = dataclasses.replace(images.MACHINES[base], flags=flags)
    elf = images.build_image(machine, [*images.KERNEL_SOURCES, CASES], tmp_path / "cases.elf", [])
    assert images.run_image(machine, elf).endswith("ok\n")


@pytest.mark.emulator
def test_counts_of_known_loops_are_right(machine, counter):
    tolerance = 0 if counter.exact else 100
    counts = counter.count_known_loops(machine)
    assert len(counts) == len(images.KNOWN_LOOPS)
    assert np.allclose(counts, images.KNOWN_LOOPS, rtol=0, atol=tolerance)


@pytest.mark.emulator
def test_kernels_stay_within_their_instruction_budgets(machine, counter):
    counts = bench_kernels.count_kernels(counter, machine, 128, 128)
    slack = 0 if counter.exact else 0.01
    assert counts["ternary to float"] <= FORWARD_BUDGET[machine.name] + slack
    assert counts["transposed to float"] <= TRANSPOSED_BUDGET[machine.name] + slack
    assert counts["ternary to float"] < counts["plain int8"]
    if machine.has_dsp:
        assert counts["ternary WD to float"] <= WD_BUDGET + slack
