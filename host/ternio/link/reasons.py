"""Words for the error numbers that a board answers with."""

from __future__ import annotations

from typing import Any

# Group 64, firmware/PROTOCOL.md; 1..63 are the runtime's tr_status.
TERNIO = {
    64: "the board has no model",
    65: "an argument is missing or wrong",
    66: "the window is not complete",
    67: "the board's storage cannot be written",
    68: "too large for a slot of the board",
    69: "the board has no adapter",
    70: "the board's arena is too small for the model",
    71: "the board has no such file",
}
_LOST = "where an adapter has run away, `ternio adapter reset` drops it"
# Zephyr's fs_mgmt codes that a board may send.
FILES = {
    2: "the file name is not valid",
    3: "the board has no such file",
    10: "the board could not write the file",
    11: "the offset is not valid",
    12: "the offset is beyond the end of the file",
    13: "this checksum is not supported",
    16: "the file is empty",
}
# MGMT_ERR of SMP, the answer of version 1 and of group 0.
GENERAL = {
    1: "unknown error",
    2: "not enough memory on the board",
    3: "a value in the request is not valid",
    4: "the board took too long",
    5: "there is no such entry on the board",
    6: "the board's state does not allow this now",
    7: "the answer is too large for a frame",
    8: "the board does not know this command",
    9: "the data is damaged",
    10: "the board is busy",
    11: "access denied",
    12: "the board's SMP version is too old",
    13: "the board's SMP version is too new",
}


def failure_text(answer: Any) -> str:
    """One line for an error answer: the board's own reason where it gives one."""
    err = getattr(answer, "err", None)
    group, rc = (int(err.group), int(err.rc)) if err is not None else (0, int(answer.rc))
    reason = getattr(answer, "rsn", None)
    if not reason:
        reason = {64: _ternio, 8: FILES.get}.get(group, GENERAL.get)(rc)
    return f"the board refused: {reason or 'error'} (group {group}, code {rc})"


def _ternio(rc: int) -> str | None:
    if rc in TERNIO:
        return TERNIO[rc]
    try:
        from ternio._runtime import ffi, lib

        text = ffi.string(lib.tr_status_text(rc)).decode()
        return f"{text}; {_LOST}" if rc == lib.TR_ERR_VALUE else text
    except ImportError:
        return None
