"""Makes basic_motions.npz from the two .ts files of the archive (see README.md beside this file).

    python -m ternio.data.make_basicmotions FOLDER_WITH_TS_FILES

The archive prints six decimals, so whole millionths (int32) hold every number exactly.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from .ts_file import read_ts

CHANNELS = ("accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z")


def main(folder: Path) -> None:
    """Writes the file next to this script; the same input gives the same arrays."""
    parts = {p: read_ts(folder / f"BasicMotions_{p.upper()}.ts") for p in ("train", "test")}
    labels = parts["train"].classes or ()
    arrays: dict[str, np.ndarray] = {
        "labels": np.array(labels),
        "channels": np.array(CHANNELS),
        "rate_hz": np.array(10.0),
    }
    for part, raw in parts.items():
        x = np.stack(raw.series)
        micro = np.rint(x * 1e6).astype(np.int32)
        if not np.array_equal(micro / 1e6, x):
            raise SystemExit(f"{raw.source}: more than six decimals")
        arrays[f"x_{part}_micro"] = micro
        arrays[f"y_{part}"] = np.array([labels.index(v) for v in raw.labels], dtype=np.uint8)
    target = Path(__file__).with_name("basic_motions.npz")
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
