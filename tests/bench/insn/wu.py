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


def random_trits(rows: int, cols: int, seed: int) -> np.ndarray:
    """A [rows, cols] int8 matrix of -1, 0, 1, each a third."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, cols), dtype=np.int8)
