import pytest

from kedge.api import specs
from kedge.observe import exposition
from kedge.observe.snapshot import EventCounts

AVAILABILITY = specs.Indicator(type=specs.IndicatorType.AVAILABILITY)
FAST = specs.Indicator(type=specs.IndicatorType.LATENCY, threshold_milliseconds=100)

PAGE = """\
# HELP kedge_server_requests Requests.
# TYPE kedge_server_requests counter
kedge_server_requests_total{model="m",code_class="2xx",fault="none"} 90.0
kedge_server_requests_total{model="m",code_class="4xx",fault="client"} 1000.0
kedge_server_requests_total{model="m",code_class="5xx",fault="server"} 7.0
kedge_server_requests_total{model="m",code_class="5xx",fault="overload"} 3.0
# TYPE kedge_server_request_duration_seconds histogram
kedge_server_request_duration_seconds_bucket{model="m",le="0.05"} 50.0
kedge_server_request_duration_seconds_bucket{model="m",le="0.1"} 80.0
kedge_server_request_duration_seconds_bucket{model="m",le="+Inf"} 90.0
kedge_server_request_duration_seconds_count{model="m"} 90.0
kedge_server_request_duration_seconds_sum{model="m"} 3.0
process_start_time_seconds 1.7e+09
python_gc_objects_collected_total{generation="0"} 111.0
"""


def test_a_clients_fault_is_not_the_models() -> None:
    _, counts = exposition.read(PAGE, [AVAILABILITY])
    assert counts["availability"] == EventCounts(bad=10, total=100)


def test_latency_is_counted_at_the_edge_of_the_objective() -> None:
    _, counts = exposition.read(PAGE, [FAST])
    assert counts["latency/100"] == EventCounts(bad=10, total=90)


def test_a_threshold_without_an_edge_is_not_guessed() -> None:
    other = specs.Indicator(type=specs.IndicatorType.LATENCY, threshold_milliseconds=70)
    _, counts = exposition.read(PAGE, [other])
    assert counts == {}


def test_the_start_of_the_process_tells_restarts_apart() -> None:
    before, _ = exposition.read(PAGE, [AVAILABILITY])
    after, _ = exposition.read(PAGE.replace("1.7e+09", "1.7000001e+09"), [AVAILABILITY])
    assert before != after


def test_only_wanted_series_are_parsed() -> None:
    exposition.read(PAGE + "whatever{ this is } not a metric\n", [AVAILABILITY])


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("", "has no kedge_server_requests_total"),
        ("<html><body>502 Bad Gateway</body></html>", "has no kedge_server_requests_total"),
        (PAGE.replace(" 7.0", " NaN"), "= nan"),
        (PAGE.replace(" 7.0", " +Inf"), "= inf"),
        (PAGE.replace(" 7.0", " -1"), "= -1"),
        (PAGE.replace(" 7.0", " seven"), "not in the Prometheus text format"),
        (PAGE + 'kedge_server_requests_total{model="m",code_class="5xx",fault="server"} 7.0\n', "twice"),
        (PAGE.replace('le="0.1"} 80', 'le="0.1"} 91'), "above its count"),
        (PAGE[: PAGE.index(" 90.0")], "not in the Prometheus text format"),
    ],
)
def test_a_page_that_contradicts_itself_is_an_error_and_never_a_number(page: str, complaint: str) -> None:
    with pytest.raises(exposition.ExpositionError, match=complaint):
        exposition.read(page, [AVAILABILITY, FAST])


def indicator(kind: specs.IndicatorType) -> specs.Indicator:
    return specs.Indicator(type=kind)


QUALITY_PAGE = (
    PAGE
    + """\
kedge_server_rows_total{model="m"} 200
kedge_server_invalid_rows_total{model="m"} 5
kedge_server_feedback_total{model="m",outcome="correct"} 40
kedge_server_feedback_total{model="m",outcome="wrong"} 2
kedge_server_feedback_total{model="m",outcome="unmatched"} 7
"""
)


def test_rows_outside_the_profile_are_bad_inputs() -> None:
    _, counts = exposition.read(QUALITY_PAGE, [indicator(specs.IndicatorType.VALID_INPUTS)])
    assert counts == {"validinputs": EventCounts(bad=5, total=200)}


def test_labels_that_match_no_prediction_tell_nothing_of_the_model() -> None:
    _, counts = exposition.read(QUALITY_PAGE, [indicator(specs.IndicatorType.FEEDBACK)])
    assert counts == {"feedback": EventCounts(bad=2, total=42)}


def test_a_server_without_a_profile_does_not_count_invalid_rows() -> None:
    page = QUALITY_PAGE.replace("kedge_server_invalid_rows_total", "kedge_server_other_total")
    assert exposition.read(page, [indicator(specs.IndicatorType.VALID_INPUTS)])[1] == {}


def test_only_families_of_the_objectives_are_asked_for() -> None:
    assert exposition.families([AVAILABILITY, indicator(specs.IndicatorType.FEEDBACK)]) == (
        "kedge_server_requests_total",
        "kedge_server_feedback_total",
        "process_start_time_seconds",
    )
