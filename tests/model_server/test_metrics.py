from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kedge_server.errors import Fault
from kedge_server.metrics import Metrics


def edges(registry: Metrics) -> list[float]:
    page = registry.render(["kedge_server_request_duration_seconds"]).decode()
    (family,) = text_string_to_metric_families(page)
    return [float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")]


@pytest.mark.parametrize("threshold_ms", [100.0, 37.0, 0.3, 2.5, 1e-3, 123456.789, 33.333333333333336])
def test_an_edge_lies_exactly_on_each_threshold(threshold_ms: float) -> None:
    found = edges(Metrics("m", (threshold_ms,)))
    assert threshold_ms / 1000 in found
    assert found == sorted(set(found))


def test_an_observation_at_the_threshold_is_within_it() -> None:
    registry = Metrics("m", (37.0,))
    registry.answered(Fault.NONE, 0.037)
    registry.answered(Fault.NONE, 0.0370001)
    page = registry.render().decode()
    assert 'le="0.037"} 1\n' in page
    assert 'le="0.05"} 2\n' in page


def test_every_fault_is_there_from_the_start_and_only_answers_are_timed() -> None:
    registry = Metrics("m")
    name = "kedge_server_requests_total"
    (family,) = text_string_to_metric_families(registry.render([name]).decode())
    assert {(s.labels["code_class"], s.labels["fault"], s.value) for s in family.samples} == {
        ("2xx", "none", 0.0),
        ("4xx", "client", 0.0),
        ("5xx", "server", 0.0),
        ("5xx", "overload", 0.0),
    }
    for fault in Fault:
        registry.answered(fault, 1.0)
    page = registry.render().decode()
    assert 'kedge_server_request_duration_seconds_count{model="m"} 1' in page
    assert 'kedge_server_requests_total{model="m",code_class="5xx",fault="overload"} 1' in page


def test_a_page_holds_only_the_families_asked_for() -> None:
    registry = Metrics("m")
    names = ["kedge_server_rows_total", "process_start_time_seconds", "kedge_server_batch_rows_bucket", "nonsense"]
    families = {f.name for f in text_string_to_metric_families(registry.render(names).decode())}
    assert families == {"kedge_server_rows", "process_start_time_seconds", "kedge_server_batch_rows"}
    assert registry.render(["nonsense"]) == b""


def test_the_whole_page_is_valid_and_says_what_is_loaded() -> None:
    registry = Metrics('odd"name\\')
    registry.loaded("7", "ab" * 32)
    registry.predicted(5, 0.01)
    families = {f.name: f for f in text_string_to_metric_families(registry.render().decode())}
    info = families["kedge_server_model_info"].samples[0].labels
    assert (info["model"], info["version"], info["digest"]) == ('odd"name\\', "7", "ab" * 32)
    assert families["kedge_server_rows"].samples[0].value == 5
    assert "python_gc_collections" in families
