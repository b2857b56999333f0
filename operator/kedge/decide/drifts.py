"""Looks for drift: compares what the judged revision has counted over its bins with what it is held against.

The servers' counters are cumulative, so what a rollout has to remember of them is small: the candidate's began
with the rollout, and of the stable revision's only where they stood when the comparison began (a window). When a
process of a window is gone, what it counted cannot be told apart any more, and a new window begins.

In a rollout, looks are taken when the rows have grown by `LOOK_GROWTH` since the last one, and share the declared
chance of a false Fail. A guard has no end: it compares window after window, each with the share of the declared
rate of false alarms that its length comes to.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kedge.api import specs
from kedge.api.statuses import Memory
from kedge.decide import times
from kedge.decide.evidence import named, states_of
from kedge.decide.judgements import Case, DriftEvidence, Judgement, Verdict
from kedge.decide.statistics import drift
from kedge.observe.snapshot import Distributions, Histogram, Snapshot

VERSION = 1
"""Of the state's meaning. A state of another version must not be continued."""

LOOK_GROWTH = 1.5
"""By how many times the rows grow between two looks: each look costs sharpness, and a late one costs time."""
GUARD_WINDOW_ROWS = 1000.0
"""Effective rows of one window of a guard: enough for a distance of 0.1 over a dozen bins."""

_KINDS = {specs.IndicatorType.FEATURE_DRIFT: "feature ", specs.IndicatorType.PREDICTION_DRIFT: "prediction "}
"""How the names of the histograms begin."""


@dataclasses.dataclass(frozen=True)
class Window:
    """Where the histograms of one revision stood when they began to be compared.

    Attributes:
        processes: Start of each counting process by the UID of its pod.
        requests: Requests that they had answered.
        rows: Rows in each bin by the name of the histogram; empty when the window began with the processes.
    """

    processes: Mapping[str, str]
    requests: int = 0
    rows: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DriftState:
    """What is remembered of the comparisons of one objective: strings and finite numbers only.

    Attributes:
        version: Of the fields' meaning.
        since: Seconds since the epoch when the windows began.
        windows: By revision.
        looks: Looks so far that could have found something.
        rows: Effective rows at the last look; 0 before the first.
        evidence: What the last look found where it is farthest from what is allowed.
        problem: Why nothing can be compared; empty when it can.
    """

    version: int = VERSION
    since: float = 0.0
    windows: Mapping[str, Window] = dataclasses.field(default_factory=dict)
    looks: int = 0
    rows: float = 0.0
    evidence: DriftEvidence | None = None
    problem: str = ""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "DriftState":
        """Returns the state whose `dataclasses.asdict`, through JSON or not, gave `fields`.

        Raises:
            ValueError: The fields are of another version, incomplete or unknown.
        """
        if fields.get("version") != VERSION:
            raise ValueError(f"drift state must be of version {VERSION}, got {fields.get('version')!r}")
        try:
            windows = {
                revision: Window(**{**one, "rows": {name: tuple(rows) for name, rows in one["rows"].items()}})
                for revision, one in fields["windows"].items()
            }
            found = fields["evidence"]
            evidence = None if found is None else DriftEvidence(**{**found, "finding": drift.Finding(found["finding"])})
            return cls(**{**fields, "windows": windows, "evidence": evidence})
        except (KeyError, TypeError) as error:
            raise ValueError(f"drift state does not have the fields of version {VERSION}: {error}") from error


def due(spec: specs.ModelDeploymentSpec, memory: Memory, now: float) -> bool:
    """Tells whether the histograms are to be read at this poll."""
    if not any(objective.indicator.is_drift for objective in spec.objectives):
        return False
    read_at = memory.distributions_read_at
    return read_at is None or now - times.seconds(read_at) >= spec.metrics.drift_interval_seconds


def look(case: Case, now: float) -> Memory:
    """Returns the memory after the histograms of this poll, if it has any, were compared."""
    read = case.snapshot.distributions
    if read is None:
        return case.memory
    states = states_of(case.memory.drifts)
    for objective in case.objectives:
        if objective.indicator.is_drift and objective.name not in case.memory.failed_objectives:
            state = _looked(case, objective, _state(states.get(objective.name)), read, now)
            states[objective.name] = dataclasses.asdict(state)
    return case.memory.model_copy(
        update={
            "distributions_read_at": times.text(now),
            "drifts": named(states),
        }
    )


def judge(case: Case, objective: specs.Objective) -> Judgement:
    """Returns the judgement of an objective on drift, from the last look."""
    state = _state(states_of(case.memory.drifts).get(objective.name))
    evidence = state.evidence or DriftEvidence(
        histogram="",
        finding=drift.Finding.INSUFFICIENT_DATA,
        distance=0.0,
        threshold=None,
        rows=0,
        effect=1.0,
        alpha=None if case.guarded else case.share,
    )
    return Judgement(objective, *_verdict(case, objective, state, evidence), evidence)


def _verdict(case: Case, objective: specs.Objective, state: DriftState, evidence: DriftEvidence) -> tuple[Verdict, str]:
    said = _said(objective, evidence)
    if evidence.finding is drift.Finding.DRIFTED or objective.name in case.memory.failed_objectives:
        return Verdict.FAIL, said
    unread = next((one for one in case.snapshot.unmeasured if one.revision == case.judged), None)
    if unread is not None or state.problem:
        return Verdict.PROVIDER_ERROR, unread.message if unread else state.problem
    missing = _missing(case, objective, evidence)
    return (Verdict.INSUFFICIENT_DATA, missing) if missing else (Verdict.PASS, said)


def _missing(case: Case, objective: specs.Objective, evidence: DriftEvidence) -> str | None:
    """Returns what an objective that nothing contradicts lacks to pass, or None."""
    said = _said(objective, evidence)
    minimum = case.spec.rollout.minimum_requests
    if case.requests_in_step < minimum:
        return f"{case.requests_in_step} of {minimum} requests in this step"
    if evidence.finding is drift.Finding.INSUFFICIENT_DATA:
        return said
    if evidence.rows < minimum:
        return f"{said}: fewer than {minimum} rows"
    if evidence.distance > objective.largest_distance:
        # Chance alone shows distances where there are few rows; a true one stays when more have come.
        return f"{said}: more rows must show whether that is chance"
    return None


def _said(objective: specs.Objective, evidence: DriftEvidence) -> str:
    if not evidence.histogram:
        return "no rows have been compared yet"
    measure = _measure(objective)
    of = f"{measure} of {evidence.histogram} is {evidence.distance:.3g} over {evidence.rows} rows"
    said = f"{of}, objective at most {objective.largest_distance:g}"
    if evidence.threshold is None:
        return f"{said}: too few rows to tell it from chance"
    return f"{said}, drift above {evidence.threshold:.3g} at so many rows"


Pair = tuple[str, list[float], tuple[int, ...]]
"""The name of a histogram, the reference's rows by bin, and the live ones."""


@dataclasses.dataclass(frozen=True, slots=True)
class Compared:
    """What one look compares."""

    pairs: list[Pair]
    rows: int
    """Live rows in the fullest histogram."""
    effect: float
    """The design effect of the live rows."""
    tests: int
    """Histograms that share the chance of a false alarm, used or not."""


def _looked(
    case: Case, objective: specs.Objective, state: DriftState, read: Mapping[str, Distributions], now: float
) -> DriftState:
    """Returns the state after this poll's histograms; unchanged when there is nothing new to look at."""
    compared_to = case.stable if objective.compare_to is specs.CompareTo.STABLE else None
    revisions = [revision for revision in (case.judged, compared_to) if revision is not None]
    if any(revision not in read for revision in revisions):
        return state
    if any(_is_unread(state.windows.get(revision), read[revision], case.snapshot) for revision in revisions):
        return state
    read = {revision: _of_kind(objective, read[revision]) for revision in revisions}
    state = _windowed(state, case, list(read.values()), now)
    live = {revision: _live(one, state.windows[revision]) for revision, one in read.items()}
    if any(count < 0 for one in live.values() for histogram in one.values() for count in histogram.rows):
        # An older reading that came late: counters of one process never go back.
        return state
    pairs, problem = _pairs(case, live[case.judged], live[compared_to] if compared_to else None)
    if problem:
        return dataclasses.replace(state, problem=problem)
    effects = {
        revision: _rows_in_request(read[revision], state.windows[revision], live[revision]) for revision in revisions
    }
    if compared_to is not None:
        pairs = [(name, [count / effects[compared_to] for count in counts], rows) for name, counts, rows in pairs]
    compared = Compared(
        pairs, max((sum(rows) for _, _, rows in pairs), default=0), effects[case.judged], len(live[case.judged])
    )
    effective = compared.rows / compared.effect
    state = dataclasses.replace(state, problem="")
    if effective < max(GUARD_WINDOW_ROWS if case.guarded else 1.0, LOOK_GROWTH * state.rows):
        return state
    return _compare(case, objective, dataclasses.replace(state, rows=effective), compared, now)


def _compare(case: Case, objective: specs.Objective, state: DriftState, compared: Compared, now: float) -> DriftState:
    number = state.looks + 1
    if case.guarded:
        # The chance that comes to this window; look 1 spends half of what it is told.
        spent = (now - state.since) / case.mean_seconds_between_false_alarms / case.may_fail
        chance, number = min(0.5, 2.0 * spent), 1
    else:
        chance = case.share
    found = [
        (
            name,
            drift.compare(
                counts,
                live,
                measure=drift.Measure(_measure(objective)),
                maximum=objective.largest_distance,
                alpha=chance,
                tests=compared.tests,
                look=number,
                design_effect=compared.effect,
            ),
        )
        for name, counts, live in compared.pairs
    ]
    name, worst = max(found, key=lambda one: _gravity(one[1]))
    evidence = DriftEvidence(
        histogram=name,
        finding=worst.finding,
        distance=worst.distance,
        threshold=worst.threshold,
        rows=int(worst.live_rows),
        effect=compared.effect,
        alpha=None if case.guarded else case.share,
    )
    could_find = any(one.finding is not drift.Finding.INSUFFICIENT_DATA for _, one in found)
    if case.guarded and could_find:
        # This window has been judged: the next reading begins another one.
        return DriftState(evidence=evidence)
    return dataclasses.replace(state, looks=state.looks + could_find, evidence=evidence)


def _gravity(comparison: drift.Comparison) -> tuple[int, float]:
    """Orders comparisons by what they say: drift, then too little to say, then the largest distance."""
    order = (drift.Finding.WITHIN, drift.Finding.INSUFFICIENT_DATA, drift.Finding.DRIFTED)
    return order.index(comparison.finding), comparison.distance - (comparison.threshold or 0.0)


def _windowed(state: DriftState, case: Case, read: list[Distributions], now: float) -> DriftState:
    """Returns the state with a window for each of these revisions, all of the same period."""
    known = [state.windows.get(one.revision) for one in read]
    if any(window is not None and _is_lost(window, one) for window, one in zip(known, read, strict=True)):
        known = [Window({}, one.requests, _rows(one)) for one in read]
        state = dataclasses.replace(state, since=now, rows=0.0)
    elif not state.windows:
        state = dataclasses.replace(state, since=now)
    windows = {}
    for one, window in zip(read, known, strict=True):
        began_with_its_pods = one.revision == case.judged and not case.guarded
        opened = window or (Window({}) if began_with_its_pods else Window({}, one.requests, _rows(one)))
        # Pods that came later count from zero: they began inside the window.
        windows[one.revision] = dataclasses.replace(opened, processes={**opened.processes, **one.processes})
    return dataclasses.replace(state, windows=windows)


def _is_lost(window: Window, read: Distributions) -> bool:
    """Tells whether a process of the window is gone, and what it had counted with it."""
    return any(read.processes.get(uid) != started_at for uid, started_at in window.processes.items())


def _is_unread(window: Window | None, read: Distributions, snapshot: Snapshot) -> bool:
    """Tells whether a pod of the window that is still there could not be read this time."""
    if window is None:
        return False
    present = {pod.uid for pod in snapshot.pods_of(read.revision)}
    return any(uid in present and uid not in read.processes for uid in window.processes)


def _rows(read: Distributions) -> dict[str, tuple[int, ...]]:
    return {name: one.rows for name, one in read.histograms.items()}


def _of_kind(objective: specs.Objective, read: Distributions) -> Distributions:
    """Returns the histograms that the objective is about."""
    kind = _KINDS[objective.indicator.type]
    return dataclasses.replace(
        read, histograms={name: one for name, one in read.histograms.items() if name.startswith(kind)}
    )


def _live(read: Distributions, window: Window) -> dict[str, Histogram]:
    """Returns the histograms with the rows since the window began."""
    live = {}
    for name, one in read.histograms.items():
        before = window.rows.get(name, (0,) * len(one.rows))
        rows = tuple(now - then for now, then in zip(one.rows, before, strict=True))
        live[name] = dataclasses.replace(one, rows=rows)
    return live


def _pairs(case: Case, ours: Mapping[str, Histogram], theirs: Mapping[str, Histogram] | None) -> tuple[list[Pair], str]:
    """Returns what is compared with what, or why nothing can be."""
    if not ours:
        return [], (
            f"the server of revision {case.judged} counts no bins: pack its model with a profile"
            " (kedge-server package --reference)"
        )
    used = {name: one for name, one in ours.items() if sum(one.rows)}
    if theirs is None:
        return [(name, list(map(float, one.reference)), one.rows) for name, one in used.items()], ""
    shared = {name: one for name, one in ours.items() if name in theirs and theirs[name].bins == one.bins}
    if not shared:
        return [], (
            f"revisions {case.judged} and {case.stable} count over different bins: pack the new model over the old"
            " one's bins (kedge-server package --bins-of)"
        )
    return [(name, list(map(float, theirs[name].rows)), one.rows) for name, one in shared.items() if name in used], ""


def _rows_in_request(read: Distributions, window: Window, live: Mapping[str, Histogram]) -> float:
    """Returns the design effect of rows that come in one request: they may all be alike, so they count as one."""
    rows = max((sum(one.rows) for one in live.values()), default=0)
    return max(1.0, rows / max(1, read.requests - window.requests))


def _measure(objective: specs.Objective) -> specs.DriftMeasure:
    return objective.indicator.measure or specs.DriftMeasure.PSI


def _state(fields: Mapping[str, Any] | None) -> DriftState:
    return DriftState() if fields is None else DriftState.from_fields(fields)
