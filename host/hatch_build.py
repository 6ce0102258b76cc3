"""Build hook: compiles the engine and the device runtime as cffi extensions (stable ABI) into the
package, and puts the sources that a board is built from beside them, so that an installed ternio
can flash without a checkout."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

EXTENSIONS = ("engine", "runtime")
SHARED = ("boards", "device", "firmware")


def compile_extension(root: Path, name: str, build_dir: Path) -> Path:
    """Compiles `ternio._<name>` from `host/ternio/_build/<name>.py`; returns the shared library."""
    script = root / "host" / "ternio" / "_build" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"ternio_build_{name}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.ffi_builder(root).compile(tmpdir=str(build_dir)))


class CffiBuildHook(BuildHookInterface):
    """Puts the two extensions beside the Python sources (editable) or into the wheel."""

    def initialize(self, version: str, build_data: dict) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        build_data["pure_python"] = False
        build_data["tag"] = f"cp310-abi3-{next(iter(platform_tags()))}"
        with tempfile.TemporaryDirectory() as build_dir:
            for name in EXTENSIONS:
                built = compile_extension(root, name, Path(build_dir))
                placed = root / "host" / "ternio" / built.name
                os.replace(_beside(built, placed), placed)
                build_data["artifacts"].append(f"/host/ternio/{built.name}")
        if version != "editable":
            for source in shared_files(root):
                target = f"ternio/_share/{source.relative_to(root).as_posix()}"
                build_data["force_include"][str(source)] = target


def shared_files(root: Path) -> list[Path]:
    """The files of SHARED without what builds leave behind."""
    return [
        path
        for folder in SHARED
        for path in sorted((root / folder).rglob("*"))
        if path.is_file()
        and not any(
            part.startswith(".") or part == "__pycache__" for part in path.parts[len(root.parts) :]
        )
    ]


def _beside(built: Path, placed: Path) -> Path:
    """A copy of `built` on the file system of `placed`, so that replacing is atomic: a running
    process that has the old library mapped keeps it."""
    copy = placed.with_name(placed.name + ".new")
    copy.write_bytes(built.read_bytes())
    copy.chmod(0o755)
    return copy
