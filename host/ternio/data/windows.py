"""Long recordings as windows of one length, and the part of them that is set aside for the test.

Neighbouring windows resemble each other, and overlapping ones share samples; a test on windows
drawn at random would flatter the model. The test therefore gets the last windows of each class in
time, and what overlaps with them is not trained on.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import DataError
from .dataset import RawDataset


def cut(raw: RawDataset, length: int, stride: int, notes: list[str]) -> RawDataset:
    """Windows of `length` samples, one every `stride` samples; what does not fill one is left out.

    Returns:
        a data set with `spans`: the series that each window comes from and its first sample.
    """
    spans = [
        (i, start)
        for i, values in enumerate(raw.series)
        for start in range(0, len(values) - length + 1, stride)
    ]
    if not spans:
        longest = max(map(len, raw.series))
        raise DataError(
            f"{raw.source}: the longest stretch of one label has {longest} samples, too few for a "
            f"window of {length}"
        )
    used = {i for i, _ in spans}
    short = len(raw) - len(used)
    left = f"; {short} of {len(raw)} stretches are shorter and left out" if short else ""
    notes.append(f"{raw.source}: {len(spans)} windows of {length}, one every {stride}{left}")
    cut_out = raw.select([i for i, _ in spans])
    return replace(
        cut_out,
        series=[raw.series[i][start : start + length] for i, start in spans],
        places=[
            raw.line(i, start) or f"{raw.places[i]}, from sample {start + 1}" for i, start in spans
        ],
        spans=spans,
        recording=False,
    )


def split_in_time(
    raw: RawDataset, classes: tuple[str, ...], fraction: float, length: int
) -> tuple[RawDataset, RawDataset]:
    """Sets aside the last `fraction` of the windows of each class, at least one; training windows
    that overlap with one of them are left out.

    Args:
        raw: windows of cut().
        length: samples of a window.
    """
    spans = raw.spans or []
    train: list[int] = []
    test: list[int] = []
    for name in classes:
        members = [i for i, label in enumerate(raw.labels) if label == name]
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        later = members[len(members) - count :]
        first = min((spans[i] for i in later), default=(len(spans), 0))
        before = [i for i in members if _ends_before(spans[i], first, length)]
        if not later or not before:
            raise DataError(
                f"{raw.source}: class {name!r} has too few windows of {length} samples "
                f"({len(members)}) to set some aside; give --test FILE or a smaller --window"
            )
        train += before
        test += later
    return raw.select(sorted(train)), raw.select(sorted(test))


def _ends_before(span: tuple[int, int], first: tuple[int, int], length: int) -> bool:
    """Whether a window lies in an earlier series than another, or ends before it begins."""
    return span[0] < first[0] or (span[0] == first[0] and span[1] + length <= first[1])
