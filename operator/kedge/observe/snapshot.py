"""One frozen view of everything that a decision rests on. Data only."""

import dataclasses
from collections.abc import Mapping

from kedge.api.conditions import Reason
from kedge.desired.revisions import Revision


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not serve, as its containers tell."""

    reason: Reason
    message: str
    permanent: bool
    """Whether waiting cannot help."""


@dataclasses.dataclass(frozen=True, slots=True)
class PodView:
    """One pod of one revision."""

    uid: str
    name: str
    revision: str
    address: str | None
    """IP address; None until the pod has one."""
    ready: bool
    terminating: bool
    """Whether it is being deleted or has ended for good."""
    created_at: float
    """Seconds since the epoch."""
    unready_since: float | None = None
    """Seconds since the epoch; None while it is ready."""
    restarts: int = 0
    """Restarts of its containers, summed."""
    trouble: Trouble | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class WorkloadView:
    """The Deployment of one revision."""

    replicas: int
    """Declared pods."""
    latency_edges_milliseconds: tuple[int, ...] = ()
    """Histogram edges with which its pods were started."""


@dataclasses.dataclass(frozen=True, slots=True)
class EventCounts:
    """Cumulative events of one indicator at one pod."""

    bad: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One reading of a pod's metrics."""

    pod_uid: str
    revision: str
    process_started_at: str
    """Start of the counting process as the page says it; empty when it says nothing."""
    counts: Mapping[str, EventCounts]
    """Events by the key of the indicator; an indicator that the page lacks is not in it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Histogram:
    """Rows by bin, of one feature or output."""

    bins: tuple[str, ...]
    """The label of each bin."""
    rows: tuple[int, ...]
    """Live rows in each bin, cumulative."""
    reference: tuple[int, ...]
    """Rows of the model's reference in each bin; none without a profile."""


@dataclasses.dataclass(frozen=True, slots=True)
class Distributions:
    """What the present processes of one revision have counted over their model's profile, summed."""

    revision: str
    processes: Mapping[str, str]
    """Start of each counting process by the UID of its pod."""
    requests: int
    """Requests that they have answered, good or bad."""
    histograms: Mapping[str, Histogram]
    """By what they are of, such as `feature age` or `prediction predict`; none without a profile."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unmeasured:
    """A ready pod that could not be read, and why."""

    pod_uid: str
    revision: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one decision rests on."""

    pods: tuple[PodView, ...] = ()
    workloads: Mapping[str, WorkloadView] = dataclasses.field(default_factory=dict)
    """The Deployments by revision."""
    selected: str | None = None
    """The revision that the Service selects, `routing.ALL_REVISIONS`, or None without a Service."""
    revisions: Mapping[str, Revision] = dataclasses.field(default_factory=dict)
    """The remembered revisions by hash."""
    samples: tuple[Sample, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()
    distributions: Mapping[str, Distributions] | None = None
    """Histograms by revision; None when they were not asked for at this poll."""
    conflicts: tuple[str, ...] = ()
    """Objects of somebody else that bear a name Kedge needs, as `Kind name`."""

    def pods_of(self, revision: str | None) -> tuple[PodView, ...]:
        """Returns the pods of a revision that are there to stay."""
        return tuple(pod for pod in self.pods if pod.revision == revision and not pod.terminating)

    def ready(self, revision: str | None) -> int:
        """Returns how many pods of a revision are ready."""
        return sum(pod.ready for pod in self.pods_of(revision))

    def measured(
        self,
        samples: tuple[Sample, ...],
        unmeasured: tuple[Unmeasured, ...],
        distributions: Mapping[str, Distributions] | None = None,
    ) -> "Snapshot":
        """Returns the snapshot with the pods' readings."""
        return dataclasses.replace(self, samples=samples, unmeasured=unmeasured, distributions=distributions)
