"""The bench of Chuck against Adam: its table and the figure of Chuck's five levels."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).resolve().parents[1] / "bench" / "bench_chuck.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_chuck", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_a_table_and_draws_the_levels(bench, tmp_path, monkeypatch, capsys):
    figure = tmp_path / "levels.svg"
    words = ["bench_chuck", "--tasks", "motion", "--seeds", "1", "--steps", "40"]
    monkeypatch.setattr(sys, "argv", [*words, "--trace", str(figure)])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "motion: 40 steps, constant rate 0.002, 1 seeds"
    goals = {line.split()[0]: line.split()[1] for line in lines[2:-1]}
    assert 10 <= int(goals["1.0"]) <= int(goals["0.5"]) <= 40
    assert lines[-1].startswith("  at the end adam 0.")
    drawn = figure.read_text()
    for level in ("1 lambda", "2 lambda of each", "3 noise", "4 parameters frozen", "5 scale"):
        assert f"<!-- {level}" in drawn


def test_a_loss_is_reached_when_the_mean_of_ten_steps_falls_to_it(bench):
    losses = np.array([2.0] * 10 + [0.0] * 10)
    assert bench.steps_to(losses, 1.0) == 15
    assert bench.steps_to(losses, 2.0) == 10
    assert bench.steps_to(losses, -0.1) == float("inf")
