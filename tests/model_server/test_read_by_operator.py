"""What the server publishes is what the operator reads; neither knows the other's code."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.model_server import support

from kedge.api import specs
from kedge.observe import distributions, exposition
from kedge.observe.snapshot import EventCounts
from kedge_server import loading, packing, proving
from kedge_server.settings import Settings

INDICATORS = [
    specs.REQUESTS,
    specs.Indicator(type=specs.IndicatorType.LATENCY, threshold_milliseconds=100),
    specs.Indicator(type=specs.IndicatorType.VALID_INPUTS),
    specs.Indicator(type=specs.IndicatorType.FEEDBACK),
]
FAMILIES = (*exposition.families(INDICATORS), *distributions.FAMILIES)


@pytest.fixture
def packed(tmp_path: Path) -> loading.LoadedModel:
    packing.package(support.churn_model(), support.churn_frame(), tmp_path / "churn", name="m")
    return proving.load_and_prove(Settings(model_name="m", model_path=tmp_path / "churn"))[0]


async def test_every_indicator_is_on_the_page(packed: loading.LoadedModel) -> None:
    async with support.served(packed) as server:
        rows = support.infer_body(
            support.tensor([25.0, 500.0], name="age"),
            support.tensor(["Oslo", "Rome"], name="city", datatype="BYTES"),
            id="a",
        )
        answer = (await server.infer(rows)).json()
        label = answer["outputs"][0]["data"][0]
        await server.client.post("/v2/models/m/feedback", json={"id": "a", "labels": [label, "nobody"]})
        page = (await server.client.get("/metrics", params=[("name[]", family) for family in FAMILIES])).text
    _, counts = exposition.read(page, INDICATORS)
    assert counts["availability"] == EventCounts(bad=0, total=1)
    assert counts["latency/100"].total == 1
    assert counts["validinputs"] == EventCounts(bad=1, total=2)
    assert counts["feedback"] == EventCounts(bad=1, total=2)


async def test_histograms_are_those_of_the_profile(packed: loading.LoadedModel) -> None:
    assert packed.package is not None
    async with support.served(packed) as server:
        page = (await server.client.get("/metrics", params=[("name[]", family) for family in FAMILIES])).text
    read = distributions.read(page)
    profile = packed.package.profile
    expected = {f"feature {bins.name}": bins for bins in profile.features} | {
        f"prediction {bins.name}": bins for bins in profile.outputs
    }
    assert {name: (one.bins, one.reference) for name, one in read.items()} == {
        name: (bins.labels, bins.counts) for name, bins in expected.items()
    }
