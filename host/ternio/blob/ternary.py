"""Ternary weights: BitNet b1.58 quantisation, the layouts `WU` and `WD` (FORMAT.md, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EPS = 1e-5
PANEL = 64

_Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def quantize(weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Trits int8 of `weight` [out, in] and gamma = mean |W| (arXiv 2402.17764, equation 1 to 3).

    The training engine has its own quantiser; the compiler uses that one where it is at hand,
    because the order of a float32 sum decides the last bit of gamma.
    """
    weight = np.asarray(weight, dtype=np.float32)
    gamma = np.float32(np.mean(np.abs(weight), dtype=np.float64))
    trits = np.clip(np.rint(weight / (gamma + np.float32(EPS))), -1, 1)
    return trits.astype(np.int8), float(gamma)


def padded(rows: int, cols: int) -> tuple[int, int]:
    """Rows rounded up to 8 and columns to 16, as they are stored."""
    return (rows + 7) // 8 * 8, (cols + 15) // 16 * 16


def packed_bytes(rows: int, cols: int) -> int:
    """Bytes of a packed [rows, cols] tensor."""
    rows8, cols16 = padded(rows, cols)
    return rows8 * cols16 // 4


def panels(cols16: int) -> list[tuple[int, int]]:
    """(first column, width) of each panel; all but the last are 64 wide."""
    return [(start, min(PANEL, cols16 - start)) for start in range(0, cols16, PANEL)]


def pack(trits: np.ndarray) -> bytes:
    """Trits [rows, cols] in {-1, 0, 1} to the bytes of layout `WU`."""
    rows, cols = trits.shape
    rows8, cols16 = padded(rows, cols)
    codes = np.ones((rows8, cols16), dtype=np.uint8)
    codes[:rows, :cols] = (1 - trits.astype(np.int16)).astype(np.uint8)
    parts = []
    for start, width in panels(cols16):
        field = codes[:, start : start + width].reshape(rows8, 4, width // 4)
        shifts = np.arange(0, 8, 2, dtype=np.uint8)[None, :, None]
        parts.append(np.bitwise_or.reduce(field << shifts, axis=1).tobytes())
    return b"".join(parts)


def merge_rows(data: bytes, rows: int, cols: int) -> bytes:
    """Layout `WU` to layout `WD`: every two rows in the form that cores with the DSP extension are
    fastest with."""
    return _by_row_pairs(data, rows, cols, _merged)


def split_rows(data: bytes, rows: int, cols: int) -> bytes:
    """Layout `WD` back to `WU`."""
    return _by_row_pairs(data, rows, cols, _split)


def _by_row_pairs(data: bytes, rows: int, cols: int, change: _Change) -> bytes:
    """Applies `change` to the words of even rows and of those that follow them."""
    rows8, cols16 = padded(rows, cols)
    words, parts, position = np.frombuffer(data, "<u4"), [], 0
    for _, width in panels(cols16):
        count = rows8 * width // 16
        pairs = words[position : position + count].reshape(rows8 // 2, 2, width // 16)
        parts.append(np.stack(change(pairs[:, 0], pairs[:, 1]), axis=1).astype("<u4").tobytes())
        position += count
    return b"".join(parts)


def _merged(even: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turned = odd ^ 0x55555555
    turned = turned >> 18 | turned << 14
    swapped = (even ^ turned) & 0xCCCCCCCC
    return even ^ swapped, turned ^ swapped


def _split(even: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    swapped = (even ^ odd) & 0xCCCCCCCC
    turned = odd ^ swapped
    return even ^ swapped, (turned << 18 | turned >> 14) ^ 0x55555555


def unpack(data: bytes, rows: int, cols: int) -> np.ndarray:
    """Trits int8 [rows, cols] from the bytes of layout `WU`.

    Raises ValueError where the length is wrong, code 3 appears or the padding is not zero.
    """
    rows8, cols16 = padded(rows, cols)
    if len(data) != packed_bytes(rows, cols):
        raise ValueError(f"{packed_bytes(rows, cols)} bytes expected, {len(data)} found")
    packed = np.frombuffer(data, dtype=np.uint8)
    codes = np.empty((rows8, cols16), dtype=np.uint8)
    position = 0
    for start, width in panels(cols16):
        count = rows8 * width // 4
        panel = packed[position : position + count].reshape(rows8, width // 4)
        for k in range(4):
            first = start + k * (width // 4)
            codes[:, first : first + width // 4] = panel >> (2 * k) & 3
        position += count
    if (codes == 3).any():
        raise ValueError("the code 3 is not a trit")
    if (codes[rows:] != 1).any() or (codes[:, cols:] != 1).any():
        raise ValueError("the padding is not zero weights")
    return (1 - codes[:rows, :cols].astype(np.int8)).astype(np.int8)
