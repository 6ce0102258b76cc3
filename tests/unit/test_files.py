"""Files that are written whole, and never over what they are made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from ternio.errors import ModelError
from ternio.files import require_apart


def test_an_output_that_is_an_input_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = Path("model.ckpt")
    source.write_bytes(b"weights")
    for name, link in (("soft", Path.symlink_to), ("hard", Path.hardlink_to)):
        link(Path(name), source.resolve())
    for output in ("model.ckpt", "./model.ckpt", "soft", "hard", str(source.resolve())):
        with pytest.raises(ModelError, match="is the checkpoint itself; name another file"):
            require_apart(Path(output), blob="other.tern", checkpoint=source)
    require_apart(Path("new.tern"), checkpoint=source, data="motion")


def test_two_outputs_of_one_name_are_refused(tmp_path: Path, monkeypatch):
    """Neither is there yet."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"x\.tern: is the blob itself"):
        require_apart(Path("x.tern"), blob=tmp_path / "x.tern")
