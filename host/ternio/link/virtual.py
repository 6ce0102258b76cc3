"""Boards that run on this computer: QEMU for an emulated chip, a process for the native board.

Each runs detached, its console on a pseudo-terminal that any program can open, and is noted in a
folder so that later commands find and stop it. A lock that the process holds for as long as it
lives tells whether it still runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ternio.boards import Board
from ternio.errors import BoardError
from ternio.paths import state_dir

BANNER_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 2.0
LEAST_FREE_BYTES = 1 << 16
QEMU = "qemu-system-arm"

# Children of this process, kept so that they are reaped when they end.
_children: dict[int, subprocess.Popen] = {}


@dataclass(frozen=True)
class VirtualBoard:
    """A running virtual board. `port` is the path of its serial port, `made_of` the fingerprint of
    the board when it started.
    """

    name: str
    board: str
    pid: int
    port: str
    image: str
    log: str
    started: float
    made_of: str = ""


class VirtualBoards:
    """The virtual boards of one folder, by default the user's."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(folder) if folder else state_dir() / "boards"

    # ---- what runs ------------------------------------------------------------------------

    def running(self) -> list[VirtualBoard]:
        """Boards that run now; notes of those that ended are removed."""
        found = []
        for note in sorted(self.folder.glob("*.json")):
            board = self._read(note)
            if board is None or not self._alive(note.stem):
                self._forget(note.stem)
            else:
                found.append(board)
        return found

    def get(self, name: str) -> VirtualBoard | None:
        """The running board called `name`, or None."""
        return next((board for board in self.running() if board.name == name), None)

    def stop(self, name: str) -> bool:
        """Ends the board called `name`; False when it was not running."""
        board = self.get(name)
        if board is None:
            return False
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(board.pid, sign)
            except ProcessLookupError:
                break
            if self._ended(board, STOP_TIMEOUT_S):
                break
        self._forget(name)
        return True

    def stop_all(self) -> list[str]:
        """Ends every running board and returns their names."""
        return [board.name for board in self.running() if self.stop(board.name)]

    # ---- starting -------------------------------------------------------------------------

    def start(
        self,
        board: Board,
        image: Path,
        *,
        name: str | None = None,
        fresh: bool = False,
        extra_args: Sequence[str] = (),
        timeout_s: float = BANNER_TIMEOUT_S,
    ) -> VirtualBoard:
        """Starts `image` (an ELF file, or the native board's program) and waits for its banner.

        A board of the same name is stopped first. `fresh` empties the native board's flash.
        `extra_args` go to QEMU or to the native board. Raises BoardError with the last words of its
        log when it ends or stays silent.
        """
        name = name or board.name
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.folder).free < LEAST_FREE_BYTES:
            raise BoardError(f"no space left on the disk of {self.folder}: {name} cannot start")
        self.stop(name)
        if not Path(image).is_file():
            raise BoardError(f"there is no image {image} to start {name} with")
        if fresh:
            self._storage(name).unlink(missing_ok=True)
        with self._lock(name) as lock:
            log = self.folder / f"{name}.log"
            log.write_bytes(b"")
            launch = self._start_process if board.is_native else self._start_qemu
            process, port = launch(board, Path(image), log, lock, list(extra_args), timeout_s)
        _children[process.pid] = process
        running = VirtualBoard(
            name,
            board.name,
            process.pid,
            port,
            str(image),
            str(log),
            time.time(),
            board.fingerprint(),
        )
        note = self.folder / f"{name}.json"
        note.write_text(json.dumps(asdict(running), indent=1), encoding="utf-8")
        try:
            _wait_for_banner(running, process, timeout_s)
        except BoardError:
            self.stop(name)
            raise
        return running

    def _start_qemu(
        self, board: Board, image: Path, log: Path, lock: int, extra: list[str], _: float
    ) -> tuple[subprocess.Popen, str]:
        """QEMU with the pseudo-terminal's master as its standard input and output; it keeps the
        slave open as well, so that clients may come and go with nothing lost.
        """
        program = shutil.which(QEMU)
        if board.emulator.get("kind") != "qemu":
            raise BoardError(f"{board.name} has no emulator: give --port for a real board")
        if program is None:
            raise BoardError(
                f"{QEMU} is not installed: install QEMU for Arm, or use --board native"
            )
        command = [program, "-M", board.emulator["machine"], "-kernel", str(image)]
        command += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
        command += ["-display", "none", "-monitor", "none", *extra]
        master, slave = os.openpty()
        try:
            _make_raw(slave)
            port = os.ttyname(slave)
            with log.open("ab") as errors:
                process = subprocess.Popen(
                    command,
                    stdin=master,
                    stdout=master,
                    stderr=errors,
                    pass_fds=(slave, lock),
                    start_new_session=True,
                )
        finally:
            os.close(master)
            os.close(slave)
        return process, port

    def _start_process(
        self, board: Board, image: Path, log: Path, lock: int, extra: list[str], timeout_s: float
    ) -> tuple[subprocess.Popen, str]:
        """The native board makes its pseudo-terminal itself and prints its path."""
        storage = self._storage(log.stem)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(image), "--flash", str(storage), *extra],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                start_new_session=True,
            )
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            ended = process.poll() is not None
            found = re.search(rb"native board on (/dev/\S+)\n", log.read_bytes())
            if found:
                return process, found.group(1).decode()
            if ended:
                break
            time.sleep(0.01)
        process.kill()
        process.wait()
        raise BoardError(f"the native board did not start: {_last_words(log)}")

    # ---- notes and locks ------------------------------------------------------------------

    @contextmanager
    def _lock(self, name: str) -> Iterator[int]:
        """The board's lock, taken; a child that inherits the descriptor holds it until it ends."""
        lock = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = time.monotonic() + STOP_TIMEOUT_S
            while not _try_lock(lock, fcntl.LOCK_EX):
                if time.monotonic() > end:
                    raise BoardError(f"a board called {name} is being started by another program")
                time.sleep(0.02)
            yield lock
        finally:
            os.close(lock)

    def _alive(self, name: str) -> bool:
        for child in list(_children.values()):
            if child.poll() is not None:
                _children.pop(child.pid, None)
        try:
            lock = os.open(self.folder / f"{name}.lock", os.O_RDWR)
        except OSError:
            return False
        try:
            return not _try_lock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    def _ended(self, board: VirtualBoard, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while self._alive(board.name):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def _storage(self, name: str) -> Path:
        return self.folder / f"{name}.flash"

    def _forget(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    @staticmethod
    def _read(note: Path) -> VirtualBoard | None:
        try:
            return VirtualBoard(**json.loads(note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make_raw(descriptor: int) -> None:
    """No echo, no line editing, no newline translation: bytes pass as they are."""
    mode = termios.tcgetattr(descriptor)
    mode[0] = mode[1] = mode[3] = 0
    mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)


def _wait_for_banner(board: VirtualBoard, process: subprocess.Popen, timeout_s: float) -> None:
    """Reads the board's port until its banner has come: some chips lose what is sent before their
    UART is on.
    """
    port = os.open(board.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        text, end = b"", time.monotonic() + timeout_s
        while time.monotonic() < end:
            if select.select([port], [], [], 0.05)[0]:
                try:
                    text += os.read(port, 4096)
                except OSError:
                    break
            if re.search(rb"ternio \S+ on .*\n", text):
                return
            if process.poll() is not None:
                break
    finally:
        os.close(port)
    how = "ended" if process.poll() is not None else f"printed no banner within {timeout_s:g} s"
    said = text.decode("utf-8", "replace").strip().splitlines()
    words = said[-1] if said else _last_words(Path(board.log))
    raise BoardError(f"the virtual board {board.name} {how}: {words}")


def _last_words(log: Path) -> str:
    """The emulator's complaint, else the last line: a complaint may have registers or advice behind
    it.
    """
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    complaints = [line for line in lines if line.startswith("qemu")]
    return (complaints or lines or ["it said nothing"])[-1]
