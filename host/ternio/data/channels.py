"""Which column of a file is which channel: by name where both sides have names, or by position."""

from __future__ import annotations

import re

from ..errors import DataError

_NO_NAME = re.compile(r"ch\d+|value")
"""What readers call a channel of a file that names none."""


def match_channels(
    found: tuple[str, ...], wanted: tuple[str, ...], source: str, others: str
) -> tuple[list[int] | None, str]:
    """Where the channels `wanted` lie among those found, and a note where that is no matter of
    course.

    Args:
        found: names in the file.
        wanted: names that a model or a training set has; () where they are not known.
        source: the file, for messages.
        others: whose the wanted names are, e.g. "the model".

    Returns:
        an index into `found` for each channel, or None: by position.

    Raises:
        DataError: the file has some of the names, but not all.

    >>> match_channels(("ay", "ax"), ("ax", "ay"), "later.csv", "the model")
    ([1, 0], 'later.csv: channels ay, ax put in the order of the model: ax, ay')
    """
    have, want = _plain(found), _plain(wanted)
    if have == want or not want or len({*have}) < len(have) or len({*want}) < len(want):
        return None, ""
    names = f"channels {', '.join(found)}"
    unnamed = _unnamed(have) or _unnamed(want)
    if {*want} == {*have} or ({*want} < {*have} and not unnamed):
        order = [have.index(name) for name in want]
        spare = [name for name, plain in zip(found, have, strict=True) if plain not in want]
        if spare:
            return order, f"{source}: {', '.join(spare)} left out, no channel of {others}"
        return order, f"{source}: {names} put in the order of {others}: {', '.join(wanted)}"
    if unnamed:
        return None, ""
    missing = [name for name, plain in zip(wanted, want, strict=True) if plain not in have]
    if len(missing) < len(want):
        raise DataError(
            f"{source}: no channel {missing[0]!r}: {others} has {', '.join(wanted)}, the file "
            f"{', '.join(found)}; rename its columns"
        )
    if len(found) != len(wanted):
        return None, ""  # whoever uses them compares the numbers
    return None, f"{source}: {names} taken by position for {', '.join(wanted)} of {others}"


def _plain(names: tuple[str, ...]) -> list[str]:
    return [name.strip().lower() for name in names]


def _unnamed(names: list[str]) -> bool:
    return all(_NO_NAME.fullmatch(name) for name in names)
