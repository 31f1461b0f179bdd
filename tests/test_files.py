"""Files are written whole or not at all; folders are walked through links, and not in circles."""

import os

import pytest

from rwkvlib.files import expand, replacing, walk, write_file


def names(folder):
    return [path.relative_to(folder).as_posix() for path in walk(folder)]


@pytest.mark.parametrize("where", ["in the block", "fsync", "replace"])
def test_what_fails_leaves_the_old_file_and_nothing_else(where, tmp_path, monkeypatch):
    write_file(tmp_path / "a.txt", "first\u00fc")

    def full(*args):
        raise OSError(28, "No space left on device")

    if where != "in the block":
        monkeypatch.setattr(f"os.{where}", full)
    with pytest.raises(OSError, match="could not write it, what it held is kept: No space left") as error:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            if where == "in the block":
                full()
    assert error.value.filename == str(tmp_path / "a.txt") and error.value.errno == 28
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text(encoding="utf8") == "first\u00fc"


def test_an_interruption_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "v.1.nii.gz", "no suffix"])
def test_the_temporary_name_is_hidden_short_and_ends_alike(name, tmp_path):
    with replacing(tmp_path / name) as temporary:
        temporary.write_bytes(b"whole")
        assert temporary.parent == tmp_path and temporary.name.startswith(".") and len(temporary.name) < 40
        assert temporary.name.endswith({"v": ".nii.gz", "x": ".png", "n": ".tmp"}[name[0]])
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"whole"


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("~/a") == tmp_path / "a" and expand(tmp_path) == tmp_path


def test_links_are_followed_but_not_in_circles(tmp_path):
    store, inbox = tmp_path / "store", tmp_path / "inbox"
    (store / "deep").mkdir(parents=True)
    (inbox / ".ipynb_checkpoints").mkdir(parents=True)
    (inbox / "__MACOSX").mkdir()
    for file in (store / "b", store / "deep/c", inbox / "a", inbox / ".DS_Store", inbox / "__MACOSX/a"):
        file.write_text("")
    (inbox / ".ipynb_checkpoints/a").write_text("")
    for day in ("monday", "tuesday"):  # the same folder twice is two folders
        (inbox / day).symlink_to(store)
    (store / "up").symlink_to(inbox)
    (store / "self").symlink_to(store)
    assert names(inbox) == ["a", "monday/b", "monday/deep/c", "tuesday/b", "tuesday/deep/c"]
