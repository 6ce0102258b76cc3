"""device/examples/infer.c compiles as its comment says and prints what the runtime answers."""

from __future__ import annotations

import subprocess

from device_example import example, windows
from device_harness import ROOT, Machine


def test_infer_example(library, tmp_path):
    device = ROOT / "device"
    sources = [device / "examples/infer.c", *sorted((device / "src").rglob("*.c"))]
    command = ["cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{device}/include"]
    subprocess.run([*command, *sources, "-o", str(tmp_path / "infer")], check=True)
    (tmp_path / "example.tern").write_bytes(example().build())
    (tmp_path / "window.bin").write_bytes(windows(1).tobytes())

    def run(*names):
        command = [tmp_path / "infer", *(tmp_path / name for name in names)]
        return subprocess.run(command, capture_output=True, text=True)

    best = Machine(library, example()).infer(windows(1)[0]).argmax()
    lines = run("example.tern", "window.bin").stdout.splitlines()
    assert len(lines) == 3 and lines[best].startswith(f"> class {best} ")
    refused = run("window.bin", "window.bin")
    assert refused.returncode == 1 and refused.stderr == "not a ternio file of this kind\n"
