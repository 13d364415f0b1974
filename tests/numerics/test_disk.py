"""Files are written whole or not at all, and packed as their names say."""

import bz2
import gzip
import lzma
import os

import pytest

from lprjax.numerics.disk import read_text, replace_file, write_text

TEXT = "Größe 数据\n1 2 3\n"


@pytest.mark.parametrize("suffix, unpack", [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_a_suffix_says_how_a_file_is_packed(tmp_path, suffix, unpack):
    path = tmp_path / f"a{suffix}"
    write_text(path, TEXT)
    assert unpack.decompress(path.read_bytes()).decode() == TEXT == read_text(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"a\{suffix} is not packed .*cut short"):
        read_text(path)
    path.write_text("1\n\nW 0 0 0\n")
    with pytest.raises(ValueError, match=f"wanted a {suffix} file"):
        read_text(path)


def test_text_is_utf8_whatever_ends_its_lines(tmp_path):
    write_text(tmp_path / "a", TEXT)
    assert (tmp_path / "a").read_bytes().decode() == TEXT
    (tmp_path / "a").write_bytes(TEXT.replace("\n", "\r\n").encode())
    assert read_text(tmp_path / "a") == TEXT
    (tmp_path / "a").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(ValueError, match="is no text.*wanted UTF-8"):
        read_text(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "b")


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, step):
    """As where the disk is full."""
    replace_file(tmp_path / "a", b"old")
    monkeypatch.setattr(os, step, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        replace_file(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_others_may_read_what_is_written(tmp_path):
    """As any file that the user makes, by the user's own mask."""
    replace_file(tmp_path / "a", b"1")
    (tmp_path / "plain").write_bytes(b"1")
    modes = {(tmp_path / name).stat().st_mode for name in ("a", "plain")}
    assert len(modes) == 1
