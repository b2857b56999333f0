from __future__ import annotations

import os
import pathlib

from hack.localcluster import trimming

NOW = 1_800_000_000.0
OLD = NOW - trimming.KEPT_SECONDS - 1


def test_only_what_is_old_and_of_the_same_kind_is_superseded(tmp_path: pathlib.Path) -> None:
    ages = {
        "kubernetes-aaaaaaaaaaaa": OLD,
        "kubernetes-bbbbbbbbbbbb": OLD,
        "kubernetes-cccccccccccc": NOW - 60,
        "kubernetes-kubectl-aaaaaaaaaaaa": OLD,
        "etcd-aaaaaaaaaaaa": OLD,
    }
    for name, time in ages.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time, time))

    found = trimming.superseded(tmp_path / "kubernetes-aaaaaaaaaaaa", NOW)

    assert [path.name for path in found] == ["kubernetes-bbbbbbbbbbbb"]
