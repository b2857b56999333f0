from __future__ import annotations

import tomllib
from pathlib import Path

import kedge_server


def test_the_version_is_the_distribution_s() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert kedge_server.__version__ == project["version"]
