"""The engine's own tests once more, with its library under the address and undefined-behaviour
sanitizers, and under valgrind. Minutes: not part of `make test`, which runs the C programs so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from engine_harness import ENGINE

HERE = Path(__file__).parent
# These compile programs of their own, or compare what takes too long under valgrind.
NOT_HERE = {"test_sanitizers.py", "test_programs.py", "test_absurd_arguments.py", "test_blas.py"}
TESTS = sorted(p.name for p in HERE.glob("test_*.py") if p.name not in NOT_HERE)
QUICK = ["test_special_values.py", "test_single_use.py", "test_views.py", "test_operations.py"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run_tests(names: list[str], before: list[str], cflags: str, **environment: str):
    """The tests of these files in a process of their own."""
    command = [*before, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-m", "not slow", "-o", "timeout=0", *names]
    variables = {**os.environ, "TE_TEST_CFLAGS": cflags, **environment}
    return subprocess.run(command, cwd=HERE, env=variables, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="preloads GCC's sanitizer")
def test_the_suite_under_sanitizers():
    """Leaks are Python's here; those of the engine are looked for in leak_check.c."""
    found = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    done = run_tests(
        TESTS,
        [],
        "-g -fsanitize=address,undefined -fno-sanitize-recover=all",
        LD_PRELOAD=found.stdout.strip(),
        ASAN_OPTIONS="detect_leaks=0",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


needs_valgrind = pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")


@needs_valgrind
def test_operations_under_valgrind():
    """Python itself reads what it did not write; only the engine's functions count."""
    done = run_tests(QUICK, ["valgrind", "-q"], "-g", PYTHONMALLOC="malloc")
    assert done.returncode == 0, done.stdout[-4000:]
    errors = re.split(r"^==\d+== *$", done.stderr + done.stdout, flags=re.M)
    ours = [error for error in errors if re.search(r"(at|by) 0x\w+: te_\w+ \(", error)]
    assert not ours, ours[0]


@needs_valgrind
@pytest.mark.parametrize(
    ("source", "arguments", "whole"),
    [("leak_check.c", [], True), ("fuzz_check.c", ["300"], False)],
)
def test_programs_under_valgrind(tmp_path, source, arguments, whole):
    """With the pool that shares its regions out, which the sanitizer's builds do without."""
    program = tmp_path / "program"
    command = ["cc", "-std=c11", "-g", "-O1", f"-I{ENGINE}", str(HERE / source)]
    command += [] if whole else [str(ENGINE / "engine.c")]
    subprocess.run([*command, "-lm", "-o", str(program)], check=True)
    watch = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=all"]
    done = subprocess.run([*watch, program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr[-4000:]
