from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import skops.io
from tests.model_server import support


@pytest.fixture(scope="session")
def iris() -> Any:
    return support.iris_model()


@pytest.fixture(scope="session")
def churn() -> Any:
    return support.churn_model()


@pytest.fixture(scope="session")
def iris_file(iris: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "iris.skops"
    skops.io.dump(iris, path)
    return path
