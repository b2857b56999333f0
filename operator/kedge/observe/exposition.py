"""Reads what the model server counts from its metrics page. Pure.

A page that contradicts itself is an error, never a number: not finite, negative, or said twice.
"""

import math
from collections.abc import Iterable, Sequence

from prometheus_client import parser
from prometheus_client.samples import Sample as Series

from kedge.api import specs
from kedge.observe.snapshot import EventCounts

REQUESTS = "kedge_server_requests_total"
DURATION = "kedge_server_request_duration_seconds"
PROCESS_START = "process_start_time_seconds"
ROWS = "kedge_server_rows_total"
INVALID_ROWS = "kedge_server_invalid_rows_total"
FEEDBACK = "kedge_server_feedback_total"

_FAMILIES = {
    specs.IndicatorType.AVAILABILITY: (REQUESTS,),
    specs.IndicatorType.LATENCY: (DURATION,),
    specs.IndicatorType.VALID_INPUTS: (ROWS, INVALID_ROWS),
    specs.IndicatorType.FEEDBACK: (FEEDBACK,),
}

_BAD_FAULTS = {"server", "overload"}
_GOOD_FAULTS = {"none"}


class ExpositionError(ValueError):
    """The page does not say what was asked, or contradicts itself."""


def families(indicators: Iterable[specs.Indicator]) -> tuple[str, ...]:
    """Returns the families to ask for: the rest of the page costs time and says nothing here."""
    wanted = dict.fromkeys(family for one in indicators for family in _FAMILIES[one.type])
    return (*wanted, PROCESS_START)


def read(page: str, indicators: Sequence[specs.Indicator]) -> tuple[str, dict[str, EventCounts]]:
    """Returns when the process started counting, and the events of each indicator by its key.

    An indicator that the page does not count is left out: a latency without its bucket edge, valid inputs of a
    model without a profile.

    Raises:
        ExpositionError: The page is not in the Prometheus text format, lacks the request counter, or a
            value of a wanted series is not a finite, non-negative number, or stands there twice.
    """
    series = _wanted_series(page, families(indicators))
    counts = {}
    for indicator in indicators:
        events = _events(series, indicator)
        if events is not None:
            counts[indicator.key] = events
    started_at = _sum(series, PROCESS_START)
    return ("" if started_at is None else repr(started_at)), counts


def _events(series: list[Series], indicator: specs.Indicator) -> EventCounts | None:
    match indicator.type:
        case specs.IndicatorType.LATENCY:
            return _latency(series, indicator)
        case specs.IndicatorType.VALID_INPUTS:
            return _bad_of_total(_sum(series, INVALID_ROWS), _sum(series, ROWS))
        case specs.IndicatorType.FEEDBACK:
            wrong, correct = (_sum(series, FEEDBACK, outcome=outcome) for outcome in ("wrong", "correct"))
            return None if wrong is None or correct is None else _bad_of_total(wrong, wrong + correct)
        case _:
            return _availability(series)


def _bad_of_total(bad: float | None, total: float | None) -> EventCounts | None:
    return None if bad is None or total is None else EventCounts(bad=round(bad), total=round(total))


def _sum(series: list[Series], name: str, **labels: str) -> float | None:
    """Returns the sum of the series with this name and these labels, or None when there is none."""
    found = [one.value for one in series if one.name == name and labels.items() <= one.labels.items()]
    return math.fsum(found) if found else None


def _wanted_series(page: str, wanted: tuple[str, ...]) -> list[Series]:
    lines = [line for line in page.splitlines() if line.startswith(wanted)]
    try:
        series = [
            one for family in parser.text_string_to_metric_families("\n".join(lines) + "\n") for one in family.samples
        ]
    except (ValueError, KeyError, IndexError) as error:
        raise ExpositionError(f"the metrics page is not in the Prometheus text format: {error}") from error
    seen = set()
    for one in series:
        identity = (one.name, tuple(sorted(one.labels.items())))
        if identity in seen:
            raise ExpositionError(f"the metrics page has {one.name} twice with the same labels")
        seen.add(identity)
        if not math.isfinite(one.value) or one.value < 0:
            raise ExpositionError(f"the metrics page has {one.name} = {one.value}")
    return series


def _availability(series: list[Series]) -> EventCounts:
    by_fault = {"bad": 0, "good": 0}
    found = False
    for one in series:
        if one.name != REQUESTS:
            continue
        found = True
        fault = one.labels.get("fault")
        if fault in _BAD_FAULTS:
            by_fault["bad"] += round(one.value)
        elif fault in _GOOD_FAULTS:
            by_fault["good"] += round(one.value)
    if not found:
        raise ExpositionError(f"the metrics page has no {REQUESTS}")
    return EventCounts(bad=by_fault["bad"], total=by_fault["bad"] + by_fault["good"])


def _latency(series: list[Series], indicator: specs.Indicator) -> EventCounts | None:
    """Counts requests over the threshold, from the bucket whose edge is exactly there."""
    edge = (indicator.threshold_milliseconds or 0) / 1000
    within = [
        round(one.value) for one in series if one.name == f"{DURATION}_bucket" and float(one.labels["le"]) == edge
    ]
    totals = [round(one.value) for one in series if one.name == f"{DURATION}_count"]
    if not within or not totals:
        return None
    total = sum(totals)
    bad = total - sum(within)
    if bad < 0:
        raise ExpositionError(f"the metrics page has a bucket of {DURATION} above its count")
    return EventCounts(bad=bad, total=total)
