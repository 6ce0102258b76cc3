"""Every bench explains itself without running, and refuses options that it does not have."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = sorted((Path(__file__).parents[1] / "bench").glob("bench_*.py"))


def run(bench: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(bench), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("bench", BENCHES, ids=lambda path: path.stem)
def test_help_runs_nothing(bench):
    done = run(bench, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {bench.name}") and "--help" in done.stdout
    assert run(bench, "--frobnicate").returncode == 2


def test_a_bench_of_the_kernels_names_its_machines():
    refused = run(BENCHES[0].with_name("bench_kernels.py"), "--machines", "m3")
    assert refused.returncode == 2 and "m0" in refused.stderr
