"""The evidence over time, thinned while it grows: each time it is full, every other point goes."""

from collections.abc import Iterable

from kedge.api import records
from kedge.api.records import EvidencePoint, EvidenceSeries, PointEvidence
from kedge.decide.judgements import Judgement

MOST_VALUES = 800
"""Points times objectives: with 4 objectives there are 200 points, with 16 there are 50."""


def added(series: EvidenceSeries, time: str, judgements: Iterable[Judgement], *, ended: bool) -> EvidenceSeries:
    """Returns the series with one more poll; the last one of a rollout is always kept."""
    latest = point(time, judgements)
    if not latest.objectives:
        return series
    points, every = series.points, series.every
    if ended or series.polls % every == 0:
        points = (*points, latest)
    if not ended and len(points) > min(records.MOST_POINTS, MOST_VALUES // len(latest.objectives)):
        points, every = points[::2], 2 * every
    return EvidenceSeries(polls=series.polls + 1, every=every, points=points)


def point(time: str, judgements: Iterable[Judgement]) -> EvidencePoint:
    """Returns the evidence at one poll."""
    return EvidencePoint(time=time, objectives=tuple(_evidence(judgement) for judgement in judgements))


def _evidence(judgement: Judgement) -> PointEvidence:
    told = judgement.to_status().model_dump(include=set(PointEvidence.model_fields))
    return PointEvidence.model_validate(told)
