"""The demo is what a new user sees first: its story must come true."""

import subprocess
import sys

import pytest
from hack.lab.examples import ROOT

pytestmark = pytest.mark.e2e


def test_the_demo_tells_a_story_that_comes_true() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hack.demo"], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        "What happened",
        "RolledBack: rejected",
        "requests failed, objective 1 %",
        "PSI of prediction",
        "the story came true",
    ):
        assert shown in done.stdout, done.stdout


def test_the_demo_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hack.demo", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, "usage: " in done.stdout) == (0, True), done.stderr
