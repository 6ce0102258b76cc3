"""Hostile blobs under AddressSanitizer and UndefinedBehaviorSanitizer: load, infer, adapt."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from device_example import example
from device_harness import compile_c
from device_stream import language_model

HERE = Path(__file__).resolve().parent
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TARGET = str(HERE / "fuzz_blob.c")


def run(command, **more) -> subprocess.CompletedProcess:
    environment = {**os.environ, "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1"}
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment, **more
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.fixture(scope="module", params=[example, language_model], ids=["windows", "tokens"])
def seed_blob(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("seed") / "example.tern"
    path.write_bytes(request.param().build())
    return path


@pytest.fixture(scope="module")
def mutator(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "mutate_blob"
    return compile_c(path, *SANITIZE, TARGET, str(HERE / "mutate_blob.c"))


@pytest.mark.parametrize("seed", [1, 2])
def test_random_damage(mutator, seed_blob, seed):
    accepted = int(run([mutator, seed_blob, 4000, seed], timeout=300).stdout)
    assert 100 < accepted < 3900, "both refusal and acceptance must be exercised"


@pytest.mark.slow
def test_random_damage_at_length(mutator, seed_blob):
    for seed in range(10, 14):
        run([mutator, seed_blob, 50000, seed], timeout=900)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("clang"), reason="libFuzzer comes with clang")
def test_libfuzzer(tmp_path, seed_blob):
    flags = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    target = compile_c(tmp_path / "fuzz_blob", *flags, TARGET, compiler=("clang",))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    shutil.copy(seed_blob, corpus)
    run([target, "-max_total_time=60", "-max_len=16384", "-timeout=20", corpus], cwd=tmp_path)
