"""Firmware images: built by PlatformIO for a board, by the C compiler for the native board, and
kept in the user's cache under a hash of everything they are made from.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from ternio.boards import Board, load_board
from ternio.errors import BuildError
from ternio.firmware import platformio
from ternio.firmware.platformio import ensure_platformio
from ternio.paths import cache_dir, share_dir

__all__ = ["BuildResult", "build", "build_native", "ensure_platformio", "upload"]

Sizes = dict[str, dict[str, int]]

NATIVE_FLAGS = [
    "-std=gnu11",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror=implicit",
    "-ffp-contract=off",
]
SANITIZE_FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@dataclass(frozen=True)
class BuildResult:
    """A firmware image. `sizes`: bytes of flash and RAM by part, `{"runtime": {"flash": ..}}`."""

    elf: Path
    bin: Path
    sizes: Sizes


# ---- boards -----------------------------------------------------------------------------------


def build(board: Board | str, model: Path | None = None) -> BuildResult:
    """Builds the firmware of a board with the compiler on PATH, with the blob `model` in its first
    slot when one is given. A board that is not ternio's own takes its manifest only.

    Raises:
        BuildError: no such family, no compiler, or the build failed.
    """
    board = load_board(board) if isinstance(board, str) else board
    port = _port_folder(board)
    blob = _read_blob(model)
    key = _digest(
        _source_files(port, "ports/cortexm", "platform", "platformio.ini"),
        [str(board.path.resolve()).encode(), board.path.read_bytes(), blob],
    )
    folder = cache_dir() / "images" / f"{board.name}-{key[:16]}"
    with _locked(cache_dir() / "images" / f"{board.name}.lock"):
        if not (folder / "firmware.elf").is_file():
            settings = {"PLATFORMIO_PLATFORMS_DIR": str(_work_folder() / "platforms")}
            _keep(_run_environment(board, board.name, model, [], settings), folder)
    return _result(folder)


def upload(board: Board | str, model: Path | None = None, port: str | None = None) -> BuildResult:
    """Builds the firmware for the real board with PlatformIO's official platform and uploads it.

    Raises:
        BuildError: the build or the upload failed.
    """
    board = load_board(board) if isinstance(board, str) else board
    environment = f"{board.name}_hw"
    _port_folder(board)
    arguments = ["-t", "upload", *(["--upload-port", port] if port else [])]
    with _locked(cache_dir() / "images" / f"{environment}.lock"):
        return _result(_run_environment(board, environment, model, arguments, {}))


def _port_folder(board: Board) -> Path:
    port = (
        None
        if board.is_native
        else _boardgen().find_port(board.path.absolute().parent, board.family)
    )
    if port is None:
        raise BuildError(
            f"there is no firmware for {board.name}: its family {board.family} has no folder in "
            f"{share_dir('firmware') / 'ports'} or in a folder `ports` beside its manifest"
        )
    return port


def _work_folder() -> Path:
    """Where PlatformIO works for these firmware sources."""
    project = str(share_dir("firmware"))
    return cache_dir() / "pio" / hashlib.sha256(project.encode()).hexdigest()[:16]


def _run_environment(
    board: Board,
    environment: str,
    model: Path | None,
    arguments: list[str],
    settings: dict[str, str],
) -> Path:
    """Runs `pio run` with its own work folder in the cache; returns the folder of the image."""
    project, work = share_dir("firmware"), _work_folder()
    settings = {**settings, "PLATFORMIO_WORKSPACE_DIR": str(work)}
    if model is not None:
        settings["TERNIO_MODEL"] = str(Path(model).resolve())
    known = f"[env:{environment}]" in (project / "platformio.ini").read_text(encoding="utf-8")
    if not known or board.path.resolve().parent != share_dir("boards").resolve():
        arguments = [*arguments, "-c", str(_write_project(board, environment, work))]
    platformio.run(["run", "-d", str(project), "-e", environment, *arguments], settings)
    return work / "build" / environment


def _write_project(board: Board, environment: str, work: Path) -> Path:
    """A platformio.ini for a board that ours does not know."""
    firmware = share_dir("firmware")
    lines = [f"platform = symlink://{firmware / 'platform'}"]
    if environment != board.name:
        official = board.manifest["ternio"].get("platform")
        if not official:
            raise BuildError(
                f"{board.path}: ternio.platform should name PlatformIO's platform for uploads, "
                'such as "ststm32"'
            )
        lines = [f"platform = {official}", "build_unflags = -Os"]
        lines.append(f"extra_scripts = pre:{firmware / 'platform' / 'hardware.py'}")
    head = f"[platformio]\nboards_dir = {board.path.resolve().parent}\n\n[env:{environment}]\n"
    path = work / f"{environment}.ini"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "\n".join([*lines, f"board = {board.name}", ""]), encoding="utf-8")
    return path


def _keep(built: Path, folder: Path) -> None:
    """Copies an image into its place in the cache, the ELF file last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("firmware.bin", "sizes.json", "firmware.elf"):
        copy = folder / f".{name}.{os.getpid()}"
        shutil.copyfile(built / name, copy)
        copy.replace(folder / name)


def _result(folder: Path) -> BuildResult:
    sizes = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
    return BuildResult(folder / "firmware.elf", folder / "firmware.bin", sizes)


def _read_blob(model: Path | None) -> bytes:
    if model is None:
        return b""
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise BuildError(f"cannot read the model {model}: {error.strerror}") from None


# ---- the native board -------------------------------------------------------------------------


def build_native(*, sanitize: bool = False) -> Path:
    """Compiles the native board with the C compiler `cc` (or $CC) and returns its program; nothing
    is done when its sources have not changed. `sanitize` adds address and undefined checks.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise BuildError("there is no C compiler: install gcc or clang, or set CC")
    extra = SANITIZE_FLAGS if sanitize else []
    board = load_board("native")
    flags = " ".join([compiler, *NATIVE_FLAGS, *extra]).encode()
    key = _digest(_source_files("ports/native", "platform"), [board.path.read_bytes(), flags])
    program = cache_dir() / "native" / key[:16] / "ternio-native"
    with _locked(cache_dir() / "native" / "build.lock"):
        if not program.is_file():
            _compile_native(compiler, extra, board, program)
    return program


def _compile_native(compiler: str, extra: list[str], board: Board, program: Path) -> None:
    firmware, device, zcbor = share_dir("firmware"), share_dir("device"), _zcbor_dir()
    work = program.parent
    work.mkdir(parents=True, exist_ok=True)
    boardgen = _boardgen()
    config = boardgen.board_config("native", boardgen.load_manifest(board.path), emulated=True)
    boardgen.write_if_changed(work / "board_config.h", config.encode())
    folders = (work, firmware / "src", device / "include", zcbor / "include")
    include = [f"-I{folder}" for folder in folders]
    roots = (firmware / "src", firmware / "ports" / "native", device / "src")
    sources = [str(path) for root in roots for path in sorted(root.rglob("*.c"))]
    theirs = [str(zcbor / "src" / name) for name in boardgen.ZCBOR_SOURCES]
    objects = [f"{Path(path).stem}.o" for path in theirs]
    _cc([compiler, *NATIVE_FLAGS, *boardgen.ZCBOR_FLAGS, *extra, *include, "-c", *theirs], work)
    unfinished = f"{program.name}.{os.getpid()}"
    _cc([compiler, *NATIVE_FLAGS, *extra, *include, *sources, *objects, "-o", unfinished], work)
    (work / unfinished).replace(program)


def _cc(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise BuildError(f"the native board does not compile: {errors[0].strip()}")


@cache
def _boardgen() -> ModuleType:
    """The generator of board_config.h, which the PlatformIO build uses as well."""
    path = share_dir("firmware") / "platform" / "boardgen.py"
    spec = importlib.util.spec_from_file_location("ternio_boardgen", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _zcbor_dir() -> Path:
    """The PyPI package zcbor, which carries its C sources."""
    folder = _boardgen().zcbor_dir()
    if folder is None:
        raise BuildError("the package zcbor is missing: pip install zcbor==0.9.1")
    return folder


# ---- shared -----------------------------------------------------------------------------------


def _source_files(*firmware_parts: str | Path) -> list[Path]:
    """Every file that the firmware is made from: the core, the runtime, and the parts named, in
    the folder `firmware` where their paths are not absolute."""
    firmware = share_dir("firmware")
    roots = [firmware / "src", share_dir("device"), _zcbor_dir()]
    roots += [firmware / part for part in firmware_parts]
    files = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*"))]
    kinds = (".c", ".h", ".ld", ".py", ".ini", ".json", ".S")
    return sorted(path for path in files if path.suffix in kinds)


def _digest(files: list[Path], more: list[bytes]) -> str:
    """SHA-256 over names and contents of files and over further bytes."""
    digest = hashlib.sha256()
    named = [part for path in files for part in (path.name.encode(), path.read_bytes())]
    for part in [*named, *more]:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One build at a time among all processes of the user."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
