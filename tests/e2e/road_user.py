"""A user who types commands in a folder, and data such as they may have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from ternio.cli import app

LENGTH, CHANNELS = 30, ("ax", "ay", "gz")
CLASSES = ("idle", "shake", "turn")
SMALL = ("--width", 32, "--layers", 1, "--heads", 2, "--ffn", 48, "--steps", 120)


@dataclass
class User:
    """Types commands in a folder: as processes of their own where `real`, else in this process."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    real: bool = False

    def run(self, *words: object, status: int = 0) -> subprocess.CompletedProcess:
        """Runs `ternio words...` and checks how it ends."""
        done = self._run_real(words) if self.real else self._run_here(words)
        assert done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
        return done

    def json(self, *words: object) -> dict:
        """Runs `ternio words... --json` and returns what it prints."""
        return json.loads(self.run(*words, "--json").stdout)

    def refused(self, *words: object, status: int = 1) -> str:
        """The one line with which `ternio words...` is refused."""
        done = self.run(*words, status=status)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
        return lines[0]

    def start(self, *words: object) -> subprocess.Popen:
        """Starts `ternio words...` as a process."""
        return subprocess.Popen(
            [Path(sys.executable).with_name("ternio"), *map(str, words)],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _run_real(self, words: tuple[object, ...]) -> subprocess.CompletedProcess:
        process = self.start(*words)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def _run_here(self, words: tuple[object, ...]) -> subprocess.CompletedProcess:
        back = os.getcwd()
        os.chdir(self.folder)
        try:
            done = CliRunner().invoke(app, [str(word) for word in words], env=self.environment)
        finally:
            os.chdir(back)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def write_examples(path: Path, per_class: int, seed: int, classes=CLASSES, channels=CHANNELS):
    """A table with a row per sample: each class has its own rhythm on its own channel, and an
    offset.
    """
    rng = np.random.default_rng(seed)
    lines = ["id,label," + ",".join(channels)]
    number = 0
    for label in classes:
        k = CLASSES.index(label)
        for _ in range(per_class):
            t = np.arange(LENGTH) + rng.uniform(0, 10)
            x = rng.normal(0, 0.3, (LENGTH, len(channels)))
            x[:, k % len(channels)] += 3 * np.sin(t * (0.3 + 0.4 * k)) + 2 - k
            lines += [f"{number},{label}," + ",".join(f"{v:.4f}" for v in row) for row in x]
            number += 1
    path.write_text("\n".join(lines) + "\n")
