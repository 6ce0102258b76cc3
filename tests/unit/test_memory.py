"""Every allocation fails once, in Python: each is an OutOfMemory, and nothing leaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ternio._build import engine as builder
from ternio.errors import OutOfMemory, TernioError

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own, on an extension that exports what only C programs have otherwise.
PROGRAM = """
import gc, importlib.util, sys
spec = importlib.util.spec_from_file_location("ternio._engine", sys.argv[1])
sys.modules["ternio._engine"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

import numpy as np
from ternio import Context, Tensor, functional as F, nn, no_grad, optim
from ternio.errors import OutOfMemory

lib = module.lib
KINDS = {"adamw": optim.AdamW, "chuck": optim.Chuck, "sgd": optim.SGD}


def train(context, kind):
    context.seed(1)
    with context:
        feed_forward = nn.SwiGLU(8, 12)
        block = nn.Block(8, nn.Attention(8, 2, 1, qk_norm=True), feed_forward)
        tail = nn.Dropout(0.1), nn.LayerNorm(8), nn.Conv1d(8, 8, 3, padding=1), nn.Linear(8, 7)
        model = nn.Sequential(nn.Embedding(7, 8), block, *tail)
        optimizer = KINDS[kind](model.parameters(), lr=1e-2)
        ids = Tensor(np.arange(6).reshape(2, 3))
        for _ in range(2):
            loss = F.cross_entropy(model(ids), ids)
            loss.backward()
            optim.clip_grad_norm_(optimizer, 1.0)
            optimizer.observe(loss.item())
            optimizer.step()
            optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
        with no_grad():
            shares = model(ids).softmax()
        return (shares[:, 1:3].transpose(0, 1).reshape(-1) - 0.5).mean().item()


def attempt(context, kind, failing):
    lib.te_fail_allocation(context.pointer, failing)
    try:
        return train(context, kind)
    except OutOfMemory as error:
        assert "\\n" not in str(error) and str(error)
    finally:
        lib.te_fail_allocation(context.pointer, -1)


for kind in KINDS:
    context = Context()
    expected = attempt(context, kind, -1)
    context.reset()
    gc.collect()
    used, failing, result = lib.te_bytes_used(context.pointer), 0, None
    while result is None:
        result = attempt(context, kind, failing)
        context.reset()
        gc.collect()
        assert lib.te_bytes_used(context.pointer) == used, (kind, failing)
        failing += 1
    assert result == expected, kind
    print(failing)
"""


def test_every_failing_allocation_is_an_error_and_leaks_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "_ONLY_C", [])
    extension = builder.ffi_builder(ROOT).compile(tmpdir=str(tmp_path))
    command = [sys.executable, "-c", PROGRAM, extension]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ)
    assert done.returncode == 0, done.stderr
    counts = [int(line) for line in done.stdout.split()]
    assert len(counts) == 3 and min(counts) > 300


def test_the_error_is_one_of_both_families():
    with pytest.raises(MemoryError) as caught:
        raise OutOfMemory("out of memory")
    assert isinstance(caught.value, TernioError)
