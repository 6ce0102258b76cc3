"""Which boards can be talked to now: virtual ones that run, and ternio firmware on the computer's
serial ports.
"""

from __future__ import annotations

from dataclasses import dataclass

from ternio.errors import LinkError, PortError
from ternio.link.client import BoardClient, BoardInfo
from ternio.link.virtual import VirtualBoards

PROBE_TIMEOUT_S = 0.5


@dataclass(frozen=True)
class FoundBoard:
    """A port with a ternio firmware behind it. `virtual` is the virtual board's name, empty for a
    real one.
    """

    port: str
    info: BoardInfo
    virtual: str = ""


def serial_ports() -> list[str]:
    """Serial ports of this computer that are USB devices, as boards are."""
    from serial.tools.list_ports import comports

    return sorted(port.device for port in comports() if port.vid is not None)


def ask(port: str, timeout_s: float = PROBE_TIMEOUT_S) -> BoardInfo | None:
    """The board's info, or None when no ternio firmware answers there.

    Raises PortError when the port cannot be opened, PortInUse when another program holds it: what
    is behind it cannot be known then.
    """
    try:
        with BoardClient(port, hello_timeout_s=timeout_s) as client:
            return client.info()
    except PortError:
        raise
    except LinkError:
        return None


def ask_if_free(port: str) -> BoardInfo | None:
    """The board's info; None when nothing answers, or the port cannot be opened now."""
    try:
        return ask(port)
    except PortError:
        return None


def find_boards(virtual: VirtualBoards | None = None) -> list[FoundBoard]:
    """All boards that answer, virtual ones first."""
    found = []
    for running in (virtual or VirtualBoards()).running():
        found += _answering(running.port, running.name)
    for port in serial_ports():
        found += _answering(port)
    return found


def _answering(port: str, virtual: str = "") -> list[FoundBoard]:
    info = ask_if_free(port)
    return [FoundBoard(port, info, virtual)] if info is not None else []


def choose_port(board: str | None, port: str | None, virtual: VirtualBoards | None = None) -> str:
    """The port to use: the one given, else that of the only board that answers (of the kind
    `board`, if given).

    Raises LinkError naming what there is when there is no such board, or more than one.
    """
    if port:
        return port
    running = {item.name: item.port for item in (virtual or VirtualBoards()).running()}
    if board and board in running:
        return running[board]
    if not board and len(running) == 1:
        return next(iter(running.values()))
    if not board and len(running) > 1:
        raise LinkError(f"several boards run ({', '.join(running)}): choose with --board or --port")
    found = [item for item in find_boards(virtual) if board in (None, item.info.board)]
    if len(found) == 1:
        return found[0].port
    if found:
        ports = ", ".join(f"{item.info.board} on {item.port}" for item in found)
        raise LinkError(f"several boards answer ({ports}): choose with --port")
    what = f"no {board} board answers" if board else "no board answers"
    raise LinkError(f"{what}: start one with `ternio flash model.tern --board ...`, or give --port")
