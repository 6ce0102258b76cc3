"""The program in device/README.md compiles as it stands, and classifies."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ternio._engine")

from typer.testing import CliRunner

from ternio import data
from ternio.checkpoint import save_checkpoint
from ternio.cli import app
from ternio.runtime import Model, Session
from test_compile_trace import CONFIGS, checkpoint_of

DEVICE = Path(__file__).resolve().parents[2] / "device"
MAIN = """
#include <stdio.h>
int main(void) {
    static int16_t window[600];
    while (fread(window, sizeof window, 1, stdin)) printf("%d\\n", classify(window, 600));
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_program_of_the_readme(tmp_path: Path) -> None:
    checkpoint = tmp_path / "motion.ckpt"
    save_checkpoint(checkpoint, checkpoint_of(CONFIGS["motion"]))
    packed = CliRunner().invoke(
        app,
        ["pack", str(checkpoint), "--name", "motion", "--c-array", str(tmp_path / "motion.h")],
    )
    assert packed.exit_code == 0, packed.output
    shown = (DEVICE / "README.md").read_text().split("```c\n")[1].split("```")[0]
    (tmp_path / "main.c").write_text(shown + MAIN)
    sources = sorted((DEVICE / "src").rglob("*.c"))
    flags = ["-Wall", "-Werror", "-ffp-contract=off", f"-I{DEVICE}/include", f"-I{tmp_path}"]
    program = tmp_path / "main"
    subprocess.run(["cc", *flags, tmp_path / "main.c", *sources, "-o", program], check=True)
    session = Session(Model.open(checkpoint.with_suffix(".tern").read_bytes()))
    _, test = data.basic_motions()
    inputs = data.InputDescription.from_training(test)
    windows = inputs.quantize(test.x)[::8]
    said = subprocess.run(
        [program], input=windows.astype("<i2").tobytes(), capture_output=True, check=True
    )
    expected = [int(np.argmax(session.infer(window))) for window in windows]
    assert [int(line) for line in said.stdout.split()] == expected
