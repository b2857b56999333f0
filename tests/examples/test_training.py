"""The example's models are what their manifests and the story say of them."""

import functools
import hashlib
import pathlib
from typing import Any

import numpy as np
import pytest
import yaml
from examples.digits import train

from kedge.api import specs
from kedge_server import packages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made = tmp_path_factory.mktemp("digits")
    train.train(made)
    return made


@functools.cache
def trained(version: str) -> Any:
    return train.VERSIONS[version](*train.data())


def share_of_failures(version: str) -> float:
    rows, _ = train.data()
    model = trained(version)
    failures = 0
    for row in rows[train.TRAINING_ROWS :]:
        try:
            model.predict(row[np.newaxis])
        except ValueError:
            failures += 1
    return failures / (len(rows) - train.TRAINING_ROWS)


@pytest.mark.parametrize("version", train.VERSIONS)
def test_a_manifest_names_the_digest_of_its_artifact(folder: pathlib.Path, version: str) -> None:
    manifest = yaml.safe_load((folder / f"{version}.yaml").read_text())

    spec = specs.ModelDeploymentSpec.model_validate(manifest["spec"])

    assert spec.model.sha256 == hashlib.sha256((folder / version / "kedge.json").read_bytes()).hexdigest()
    assert spec.model.uri.endswith(f"/{version}/")


def test_the_versions_differ_in_their_model_alone(folder: pathlib.Path) -> None:
    manifests = [yaml.safe_load((folder / f"{version}.yaml").read_text()) for version in train.VERSIONS]
    for manifest in manifests:
        del manifest["spec"]["model"]

    assert all(manifest == manifests[0] for manifest in manifests)


def test_the_versions_are_counted_over_the_same_bins(folder: pathlib.Path) -> None:
    profiles = [packages.read(folder / version, None).profile for version in train.VERSIONS]

    assert len({profile.features[20].labels for profile in profiles}) == 1
    assert len({bins.labels for profile in profiles for bins in profile.outputs if bins.name == "predict"}) == 1


def test_the_fourth_version_answers_every_row_and_is_often_wrong() -> None:
    rows, labels = train.data()
    unseen = slice(train.TRAINING_ROWS, None)

    assert 0.4 < trained("v4").score(rows[unseen], labels[unseen]) < 0.6


def test_the_second_version_is_better_than_the_first() -> None:
    rows, labels = train.data()
    unseen = slice(train.TRAINING_ROWS, None)

    first, second = (trained(version) for version in ("v1", "v2"))

    assert second.score(rows[unseen], labels[unseen]) > first.score(rows[unseen], labels[unseen]) + 0.03


@pytest.mark.parametrize(
    ("version", "least", "most"), [("v1", 0.0, 0.0), ("v2", 0.0, 0.0), ("v3", 0.05, 0.2), ("v4", 0.0, 0.0)]
)
def test_only_the_third_version_raises_on_unseen_rows(version: str, least: float, most: float) -> None:
    assert least <= share_of_failures(version) <= most
