from __future__ import annotations

import pathlib

import pytest
from hack.localcluster import errors, machine

WITHOUT_SYS_RESOURCE = "CapPrm:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\n"
WITH_ALL = "CapPrm:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(WITHOUT_SYS_RESOURCE, True), (WITH_ALL, False), ("Name:\tbash\n", False)],
    ids=["missing", "present", "unknown"],
)
def test_the_bounding_set_tells_whether_containers_need_help(status: str, *, expected: bool) -> None:
    assert machine.lacks_sys_resource(status) is expected


def facts(*, root: bool, apt: bool, docker: bool) -> machine.Facts:
    return machine.Facts(is_root=root, has_apt=apt, docker_answers=docker)


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (facts(root=False, apt=True, docker=False), "not root"),
        (facts(root=True, apt=False, docker=False), "no apt-get"),
    ],
)
def test_a_machine_without_any_docker_is_told_what_is_missing(here: machine.Facts, said: str) -> None:
    with pytest.raises(errors.UnsuitableMachineError, match=f"Docker is missing.*{said}"):
        machine.require_docker_or_root(here)


@pytest.mark.parametrize(
    "here",
    [facts(root=False, apt=False, docker=True), facts(root=True, apt=True, docker=False)],
    ids=["docker runs", "root on Debian"],
)
def test_docker_or_root_on_debian_is_enough_to_start(here: machine.Facts) -> None:
    machine.require_docker_or_root(here)


@pytest.mark.parametrize(
    "here",
    [facts(root=False, apt=True, docker=True), facts(root=True, apt=False, docker=True)],
)
def test_building_a_node_needs_root_on_debian(here: machine.Facts) -> None:
    with pytest.raises(errors.UnsuitableMachineError, match="node image is missing"):
        machine.require_build(here)


def test_paths_are_taken_out_and_put_in_without_touching_the_rest() -> None:
    environment = {"PATH": "/a:/checkout/.local/bin:/b"}

    assert machine.path_without(pathlib.Path("/checkout/.local/bin"), environment) == "/a:/b"
    assert machine.path_with_system({"PATH": "/usr/bin:/a"}).startswith("/usr/bin:/a:")
    assert machine.path_with_system({"PATH": "/usr/bin"}).count("/usr/bin") == 1
