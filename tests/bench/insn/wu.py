"""Ternary matrices for tests and benchmarks: the layout WU of device/FORMAT.md section 3 in NumPy.

Written from the specification alone, so that it also checks the packer in host/ternio.
"""

from __future__ import annotations

import numpy as np

PANEL = 64


def pack(trits: np.ndarray) -> bytes:
    """The bytes of a [rows, cols] matrix of -1, 0, 1; rows padded to 8, columns to 16."""
    rows, cols = trits.shape
    codes = np.ones((-(-rows // 8) * 8, -(-cols // 16) * 16), np.uint8)
    codes[:rows, :cols] = 1 - trits
    panels = []
    for first in range(0, codes.shape[1], PANEL):
        fields = codes[:, first : first + PANEL].reshape(len(codes), 4, -1)
        panels.append(sum(fields[:, k] << (2 * k) for k in range(4)).astype(np.uint8).tobytes())
    return b"".join(panels)


def merge_rows(packed: bytes, rows: int, cols: int) -> bytes:
    """The layout WD of a matrix in WU: the 32-bit words of an even row and the next row, merged.

    Out of `even` and `odd ^ 0x55555555` rotated by 18 bits (so that 1 - w becomes w), the fields
    0, 2 of both rows come to lie in the even row's words and the fields 1, 3 in the odd row's.
    """
    rows8, cols16 = -(-rows // 8) * 8, -(-cols // 16) * 16
    words = np.frombuffer(packed, "<u4").copy()
    start = 0
    for first in range(0, cols16, PANEL):
        count = rows8 * min(PANEL, cols16 - first) // 16
        pairs = words[start : start + count].reshape(rows8 // 2, 2, -1)
        odd = pairs[:, 1] ^ np.uint32(0x55555555)
        odd = (odd >> np.uint32(18)) | (odd << np.uint32(14))
        swap = (pairs[:, 0] ^ odd) & np.uint32(0xCCCCCCCC)
        pairs[:, 0] ^= swap
        pairs[:, 1] = odd ^ swap
        start += count
    return words.tobytes()


def random_trits(rows: int, cols: int, seed: int) -> np.ndarray:
    """A [rows, cols] int8 matrix of -1, 0, 1, each a third."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, cols), dtype=np.int8)
