from __future__ import annotations

import contextlib
import pathlib

from hack.localcluster import locks


def test_a_lock_that_somebody_holds_is_not_had(tmp_path: pathlib.Path) -> None:
    lock = tmp_path / "lock"

    with locks.held(lock), locks.attempted(lock) as had:
        assert not had
    with locks.attempted(lock) as had:
        assert had


def test_readers_share_a_lock_and_keep_a_writer_out(tmp_path: pathlib.Path) -> None:
    lock = tmp_path / "lock"

    with locks.held(lock, shared=True), locks.held(lock, shared=True), locks.attempted(lock) as had:
        assert not had


def test_a_folder_is_seen_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "target"
    with contextlib.suppress(ZeroDivisionError), locks.new_folder(target) as new:
        (new / "half").write_text("")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []

    with locks.new_folder(target) as new:
        (new / "whole").write_text("")
        assert not target.exists()
    assert [file.name for file in target.iterdir()] == ["whole"]


def test_what_a_killed_run_left_is_removed(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".target.4711").mkdir()

    with locks.new_folder(tmp_path / "target"):
        pass

    assert [file.name for file in tmp_path.iterdir()] == ["target"]


def test_a_file_is_replaced_in_one_step(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "file"
    locks.write_text(target, "one")
    with contextlib.suppress(ZeroDivisionError), locks.new_file(target) as new:
        new.write_text("half of tw")
        _ = 1 / 0

    assert target.read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]
