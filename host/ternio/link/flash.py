"""Getting a model onto a board: over the serial port where a ternio firmware answers, else with the
firmware.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ternio.boards import Board
from ternio.errors import BoardError, LinkError, PortError
from ternio.link.client import DIGEST, BoardClient, BoardInfo
from ternio.link.find import ask
from ternio.link.virtual import VirtualBoards

Progress = Callable[[int, int], None]

PORT_BACK_S = 3.0


@dataclass(frozen=True)
class Flashed:
    """What was done: `how` is "sent" (blob over the port), "built" (firmware with the model inside)
    or "kept" (the board had this very model). `sizes` are bytes of flash and RAM per part of a
    built firmware.
    """

    how: str
    port: str
    info: BoardInfo
    blob_bytes: int
    seconds: float
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)


def flash(
    board: Board,
    blob_path: Path,
    *,
    port: str | None = None,
    full: bool = False,
    hardware: bool = False,
    virtual: VirtualBoards | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Flashed:
    """Brings the blob at `blob_path` onto `board`.

    Args:
        port: a serial port; without it the virtual board of that name is used, unless `hardware`.
        full: build and upload the firmware even when one answers.
        hardware: the board on the desk rather than the emulated one.
        virtual: where virtual boards are noted. One that was started from another manifest, or
            another version of it, gets a firmware of its own.
        progress: told (bytes sent, all bytes).
        tell: told in a line what is being done.

    Raises BoardError, BuildError, LinkError or BlobError; the board then has what it had before.
    """
    blob = checked_blob(board, blob_path)
    virtual = virtual or VirtualBoards()
    start = time.monotonic()
    emulated = board.is_emulated and not hardware and port is None
    if emulated:
        running = virtual.get(board.name)
        port = running.port if running else None
        if running and running.made_of != board.fingerprint():
            tell(f"{board.path} has changed since {board.name} started")
            port = None
    info = ask(port) if port and not full else None
    if info is not None and _fits_over_the_wire(board, info, blob, emulated):
        how, sizes = _send(port, info, blob, progress), {}
    elif emulated:
        tell(f"building the firmware of {board.name}")
        port, sizes = _start_virtual(board, blob_path, virtual, full)
        how = "built" if not board.is_native else _send(port, ask(port), blob, progress)
    else:
        tell(f"building and uploading the firmware of {board.name}")
        sizes = _upload_hardware(board, blob_path, port)
        how = "built"
    info = _after_upload(port) if port else None
    if info is None:
        what = "give --port and try `ternio infer`"
        if emulated:
            what = "it spoke but does not hear: see ternio.console of its manifest"
        raise LinkError(f"{board.name} was flashed, but no firmware answers: {what}")
    if info.digest != blob[DIGEST].hex():
        raise LinkError(
            f"{board.name} runs {info.model or 'no model'} ({info.reason or info.digest[:16]})"
        )
    return Flashed(how, port, info, len(blob), time.monotonic() - start, sizes)


def _after_upload(port: str) -> BoardInfo | None:
    """The board's info; its port may be away for a moment after an upload."""
    end = time.monotonic() + PORT_BACK_S
    while True:
        try:
            return ask(port, timeout_s=2.0)
        except PortError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def checked_blob(board: Board, path: Path) -> bytes:
    """The blob's bytes, verified by the runtime itself and against the board's memory."""
    from ternio.blob import Blob
    from ternio.compile import require_fit
    from ternio.runtime import Model

    try:
        blob = Path(path).read_bytes()
    except OSError as error:
        raise BoardError(f"cannot read the model {path}: {error.strerror}") from None
    Model(blob, str(path))
    require_fit(Blob.decode(blob), board)
    return blob


def _fits_over_the_wire(board: Board, info: BoardInfo, blob: bytes, emulated: bool) -> bool:
    if info.board != board.name:
        raise BoardError(
            f"the board that answers is {info.board}, not {board.name}: choose with --board"
        )
    if len(blob) <= info.slot_bytes:
        return True
    if emulated:
        return False
    raise BoardError(
        f"the model has {len(blob)} bytes, a slot of {board.name} takes {info.slot_bytes}: "
        "--full builds the firmware with the model inside"
    )


def _send(port: str, info: BoardInfo | None, blob: bytes, progress: Progress | None) -> str:
    if info is not None and info.digest == blob[DIGEST].hex():
        return "kept"
    with BoardClient(port) as client:
        client.upload_model(blob, progress)
    return "sent"


def _start_virtual(
    board: Board, blob_path: Path, virtual: VirtualBoards, fresh: bool
) -> tuple[str, dict[str, dict[str, int]]]:
    from ternio.firmware import pio

    if board.is_native:
        running = virtual.start(board, pio.build_native(), fresh=fresh)
        return running.port, {}
    built = pio.build(board, blob_path)
    return virtual.start(board, built.elf).port, built.sizes


def _upload_hardware(board: Board, blob_path: Path, port: str | None) -> dict[str, dict[str, int]]:
    from ternio.firmware import pio

    return pio.upload(board, blob_path, port).sizes
