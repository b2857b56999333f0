from __future__ import annotations

import pathlib

from hack.localcluster import content


def key(root: pathlib.Path, *extra: str) -> str:
    return content.key(root, content.files_below(root), extra)


def test_the_key_follows_names_contents_and_modes(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    seen = {key(tmp_path)}

    file.write_text("two")
    seen.add(key(tmp_path))
    file.chmod(0o755)
    seen.add(key(tmp_path))
    file.rename(tmp_path / "b.txt")
    seen.add(key(tmp_path))
    seen.add(key(tmp_path, "word"))

    assert len(seen) == 5


def test_the_key_is_the_same_in_another_folder_and_at_another_time(tmp_path: pathlib.Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("one")

    assert key(tmp_path / "first") == key(tmp_path / "second")


def test_contents_cannot_move_between_files_unseen(tmp_path: pathlib.Path) -> None:
    for name, first, second in (("x", "ab", "c"), ("y", "a", "bc")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").write_text(first)
        (tmp_path / name / "2").write_text(second)

    assert key(tmp_path / "x") != key(tmp_path / "y")


def test_what_python_leaves_behind_does_not_count(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.py").write_text("")
    before = key(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")

    assert key(tmp_path) == before
