"""Files that are written whole, and never over what they are made from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ternio.errors import ModelError
from ternio.files import require_apart, write_whole


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


def test_two_write_one_file_at_once(tmp_path: Path):
    """Each whole; the one that ends last stays, and nothing else does."""
    path = tmp_path / "model.ckpt"
    (tmp_path / "model.ckpt.partial").mkdir()

    def slowly(file) -> None:
        file.write(b"first, ")
        assert write_whole(path, lambda other: other.write(b"second")) == 6
        assert path.read_bytes() == b"second"
        file.write(b"and last")

    assert write_whole(path, slowly) == 15
    assert path.read_bytes() == b"first, and last"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.ckpt", "model.ckpt.partial"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path, error):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"old")

    def fail(file) -> None:
        file.write(b"half")
        raise error

    expected = ModelError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_whole(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["model.ckpt"]
    assert path.read_bytes() == b"old"


def test_what_is_in_place_is_on_the_disk(tmp_path: Path, monkeypatch):
    """The content first, then the name."""
    calls = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, c=call: (calls.append(n), c(*a))[1])
    path = tmp_path / ("long" * 63)  # 252 characters, of 255 that file systems allow
    write_whole(path, lambda file: file.write(b"new"))
    assert calls == ["fsync", "replace"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
