"""PlatformIO as ternio runs it: made ready also where its registry cannot be reached."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ternio.errors import BuildError

PROBE_TIMEOUT_S = 3.0
RUN_TIMEOUT_S = 600.0
LOG_LINES = 12
_TELLING = re.compile(r"error|undefined reference|overflow|will not fit", re.IGNORECASE)
_UNKNOWN = re.compile(r"'BOARD_(\w+)' undeclared")
_NOISE = re.compile(r"^(Compiling|\*\*\*|collect2)")


def core_dir() -> Path:
    """Where PlatformIO keeps its packages."""
    return Path(os.environ.get("PLATFORMIO_CORE_DIR") or Path.home() / ".platformio")


def ensure_platformio() -> None:
    """Makes `pio run` work: PlatformIO fetches its build tool (SCons) itself where its registry
    answers; elsewhere a package is put in place that forwards to the SCons of this Python.

    Raises:
        BuildError: PlatformIO or SCons is not installed in this Python.
    """
    try:
        from platformio.dependencies import get_core_dependencies
    except ImportError:
        raise BuildError("PlatformIO is missing: pip install platformio") from None
    packages = core_dir() / "packages"
    if any(packages.glob("tool-scons*/package.json")) or _registry_answers():
        return
    try:
        import SCons.Script  # noqa: F401
    except ImportError:
        raise BuildError("SCons is missing: pip install scons") from None
    _put_forwarder(packages, get_core_dependencies()["tool-scons"].lstrip("~^="))


def _registry_answers() -> bool:
    """Whether one of PlatformIO's registry mirrors can be reached."""
    import requests
    from platformio import __registry_mirror_hosts__

    for host in __registry_mirror_hosts__:
        try:
            if requests.head(f"https://{host}", timeout=PROBE_TIMEOUT_S).ok:
                return True
        except requests.RequestException:
            continue
    return False


def _put_forwarder(packages: Path, version: str) -> None:
    """A package `tool-scons` whose scons.py runs the SCons that pip installed."""
    spec = {"owner": "platformio", "id": None, "name": "tool-scons"}
    spec |= {"requirements": None, "uri": None}
    record = {"type": "tool", "name": "tool-scons", "version": version, "spec": spec}
    manifest = {"name": "tool-scons", "version": version, "description": "SCons of pip, forwarded"}
    packages.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=packages.parent, prefix=".tool-scons-"))
    try:
        (folder / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
        (folder / ".piopm").write_text(json.dumps(record), encoding="utf-8")
        (folder / "scons.py").write_text("import SCons.Script\n\nSCons.Script.main()\n")
        folder.chmod(0o755)
        folder.rename(packages / "tool-scons")
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        if not (packages / "tool-scons" / "package.json").exists():
            raise BuildError(f"cannot write PlatformIO's folder {packages}") from None


def run(arguments: list[str], environment: Mapping[str, str]) -> str:
    """Runs `pio` with `arguments` and returns what it printed.

    Raises:
        BuildError: it failed; the text has the last lines of its output.
    """
    ensure_platformio()
    command = [sys.executable, "-m", "platformio", *arguments]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "No", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=RUN_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"pio did not end within {RUN_TIMEOUT_S:g} s") from None
    if done.returncode:
        lacking = dict.fromkeys(map(_manifest_key, _UNKNOWN.findall(done.stdout)))
        if lacking:
            raise BuildError(f"the manifest lacks what its family asks for: {', '.join(lacking)}")
        raise BuildError(f"pio {' '.join(arguments)} failed: {_reason(done.stdout)}")
    return done.stdout


def _reason(output: str) -> str:
    """The errors in the output of a build, or its last lines."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _TELLING.search(line) and not _NOISE.search(line)]
    return " | ".join(list(dict.fromkeys(errors or lines))[-LOG_LINES:])


def _manifest_key(name: str) -> str:
    """Where a fact of board_config.h comes from.

    >>> _manifest_key("CONSOLE_BASE"), _manifest_key("CPU_HZ")
    ('ternio.console.base', 'ternio.clock.cpu_hz')
    """
    for block in ("console", "watchdog"):
        if name.lower().startswith(f"{block}_"):
            return f"ternio.{block}.{name.lower().removeprefix(f'{block}_')}"
    return f"ternio.clock.{name.lower()}" if name.endswith("_HZ") else f"ternio.{name.lower()}"
