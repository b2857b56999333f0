"""What is judged, and what a judgement says of it."""

import dataclasses
from enum import StrEnum
from typing import Any

from kedge.api import specs
from kedge.api.statuses import Memory, ObjectiveStatus, RatioCounts
from kedge.decide import counting
from kedge.decide.statistics import alpha, confidence, drift
from kedge.observe.snapshot import Snapshot


class Verdict(StrEnum):
    """What can be said about an objective. Only Fail may roll back."""

    PASS = "Pass"  # noqa: S105
    FAIL = "Fail"
    INSUFFICIENT_DATA = "InsufficientData"
    PROVIDER_ERROR = "ProviderError"


@dataclasses.dataclass(frozen=True, slots=True)
class RatioEvidence:
    """What was counted for an objective on a share of events, and what it proves."""

    bad: int
    total: int
    log_e: float
    """Natural logarithm of the evidence against the objective."""
    log_threshold: float
    """The evidence at which the verdict is Fail."""
    alpha: float | None
    """The chance of a false Fail that the objective was given; None for a guard, which has a rate instead."""
    effect: float
    """The design effect: by what the counts were divided."""
    interval: confidence.Interval
    """Where the true bad fraction lies, at every look."""
    detectable: float | None
    """The smallest bad fraction that this many requests would have revealed; None when none would."""

    def to_status(self) -> dict[str, Any]:
        """Returns the fields of an ObjectiveStatus that tell this evidence."""
        tested = {
            "log_e_value": f"{self.log_e:.4f}",
            "log_threshold": f"{self.log_threshold:.4f}",
            "alpha_percent": None if self.alpha is None else percent(self.alpha),
        }
        if not self.total:
            return tested
        return tested | {
            "requests": self.total,
            "bad": self.bad,
            "estimate_percent": percent(self.bad / self.total),
            "design_effect": f"{self.effect:.4g}",
            "interval_percent": (percent(self.interval.low), percent(self.interval.high)),
            "detectable_percent": None if self.detectable is None else percent(self.detectable),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class DriftEvidence:
    """The comparison of histograms that is farthest from what is allowed, as it was at the last look."""

    histogram: str
    """The feature or output; empty before the first look."""
    finding: drift.Finding
    distance: float
    threshold: float | None
    """The distance above which it is drift; None where there are too few rows to say."""
    rows: int
    """Live rows in it."""
    effect: float
    """The design effect: by what the rows were divided."""
    alpha: float | None
    """The chance of a false Fail that the objective was given; None for a guard, which has a rate instead."""

    def to_status(self) -> dict[str, Any]:
        """Returns the fields of an ObjectiveStatus that tell this evidence."""
        given = {"alpha_percent": None if self.alpha is None else percent(self.alpha)}
        if not self.histogram:
            return given
        return given | {
            "requests": self.rows,
            "design_effect": f"{self.effect:.4g}",
            "histogram": self.histogram,
            "distance": f"{self.distance:.4g}",
            "distance_threshold": None if self.threshold is None else f"{self.threshold:.4g}",
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one objective, with its evidence."""

    objective: specs.Objective
    verdict: Verdict
    message: str
    evidence: RatioEvidence | DriftEvidence

    @property
    def fails(self) -> bool:
        """Whether the measurements contradict the objective."""
        return self.verdict is Verdict.FAIL

    def to_status(self) -> ObjectiveStatus:
        """Returns the judgement as status shows it."""
        return ObjectiveStatus(
            name=self.objective.name, verdict=self.verdict.value, message=self.message, **self.evidence.to_status()
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What is judged."""

    spec: specs.ModelDeploymentSpec
    memory: Memory
    snapshot: Snapshot
    judged: str
    """The candidate, or the promoted revision that is guarded."""
    stable: str | None
    """The revision to compare with; None for a guarded one, which has none beside it."""
    guarded: bool = False
    """Whether the judged revision was promoted, and the watch over it has no end known in advance."""

    def counts(self, objective: specs.Objective, revision: str | None) -> RatioCounts:
        """Returns the events of an objective's indicator at a revision."""
        return counting.of(self.memory, objective.indicator.key, revision)

    @property
    def requests_in_step(self) -> int:
        """Requests to the judged revision since the present step began."""
        return counting.of(self.memory, specs.REQUESTS.key, self.judged).step_total

    @property
    def objectives(self) -> tuple[specs.Objective, ...]:
        """What is judged: a guarded revision has no other beside it to be compared with."""
        if not self.guarded:
            return self.spec.objectives
        return tuple(one for one in self.spec.objectives if one.compare_to is specs.CompareTo.TARGET)

    @property
    def may_fail(self) -> int:
        """How many objectives share the bound on false alarms."""
        return max(1, sum(objective.action is specs.Action.ROLLBACK for objective in self.spec.objectives))

    @property
    def share(self) -> float:
        """The chance of a false Fail that each of these objectives may spend in a rollout."""
        return alpha.share(float(self.spec.rollout.false_rollback_percent / 100), self.may_fail)

    @property
    def mean_seconds_between_false_alarms(self) -> float:
        """How rarely the guard of a good revision cries wolf, on average."""
        return self.spec.rollout.guard.mean_hours_between_false_alarms * 3600.0


def percent(fraction: float) -> str:
    """Returns a fraction as a decimal string of percent with at most four significant digits."""
    return f"{100 * fraction:.4g}" if 100 * fraction >= 1e-4 or fraction == 0 else f"{100 * fraction:.4f}"
