"""Keeps the records of rollouts while they go on.

Decisions are noted at once and written down after they were acted on: no rollback waits for its record, and
no record that cannot be written stops a rollout.
"""

import dataclasses
import logging
from collections.abc import Callable

from kedge import kubernetes_api
from kedge.act import records
from kedge.api.records import Period
from kedge.control.cache import Key
from kedge.control.metrics import Metrics
from kedge.decide import recording
from kedge.decide.decisions import Decision, Input
from kedge.decide.recording import Recording, Subject
from kedge.desired.names import Owner
from kedge.kubernetes_api import KubernetesApi

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0
MOST_NOTED = 500
"""Decisions that wait for the API server to answer: beyond them the oldest are given up, and become a gap."""
MOST_UNWRITTEN = 4
"""Records of one ModelDeployment that wait to be written; the oldest is given up beyond them."""


@dataclasses.dataclass
class Desk:
    """What is being written about one ModelDeployment."""

    latest: tuple[Input, Decision]
    noted: list[tuple[Input, Decision]] = dataclasses.field(default_factory=list)
    """Decisions that are in no recording yet, oldest first."""
    recording: Recording | None = None
    """Of the present rollout or guard."""
    unwritten: dict[Subject, Recording] = dataclasses.field(default_factory=dict)
    """What is to be stored."""
    versions: dict[Subject, str] = dataclasses.field(default_factory=dict)
    """resourceVersions of the records that exist and are not finished."""
    left_alone: Subject | None = None
    """A rollout whose record was finished by somebody else."""
    is_new: bool = True
    """Whether nobody has looked yet for what an earlier operator left open."""
    failures: int = 0
    retry_at: float = 0.0

    def advance(self, given: Input, decision: Decision) -> None:
        """Takes one more decision into the recording."""
        subject = recording.subject_of(given.status, decision.status)
        if subject is None or subject == self.left_alone:
            self.recording = None
            return
        self.recording = recording.advance(self.recording, given, decision)
        if self.recording is not None and self.recording.is_news and self.recording.is_to_be_kept:
            self.unwritten[subject] = self.recording
            for oldest in tuple(self.unwritten)[:-MOST_UNWRITTEN]:
                del self.unwritten[oldest]

    def wrote(self, subject: Subject, version: str) -> None:
        """Remembers that a record is stored as it is here."""
        written = self.unwritten.pop(subject)
        self.versions[subject] = version
        if written.record.outcome is not None:
            del self.versions[subject]
        if self.recording is written:
            self.recording = dataclasses.replace(written, is_news=False)


class RecordKeeper:
    """Turns decisions into RolloutRecords."""

    def __init__(self, api: KubernetesApi, metrics: Metrics, *, now: Callable[[], float]) -> None:
        self._api = api
        self._metrics = metrics
        self._now = now
        self._desks: dict[Key, Desk] = {}

    def note(self, key: Key, given: Input, decision: Decision) -> None:
        """Remembers a decision whose status was written."""
        desk = self._desks.setdefault(key, Desk((given, decision)))
        desk.latest = (given, decision)
        desk.noted = [*desk.noted, desk.latest][-MOST_NOTED:]

    def forget(self, key: Key) -> None:
        """Forgets a ModelDeployment that is gone; its records go with it."""
        self._desks.pop(key, None)

    async def keep(self, key: Key, owner: Owner) -> float | None:
        """Writes down what was noted; returns the seconds until the next try when that fails, and None otherwise."""
        desk = self._desks[key]
        if (wait := desk.retry_at - self._now()) > 0:
            return wait
        try:
            await self._write_down(desk, owner)
        except kubernetes_api.NamespaceTerminatingError:
            self.forget(key)
            return None
        except kubernetes_api.ApiError as error:
            self._metrics.record_errors.inc()
            logger.warning("%s: cannot write its RolloutRecord: %s", key, error)
            wait = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(desk.failures, 16))
            desk.failures += 1
            desk.retry_at = self._now() + wait
            return wait
        desk.failures = 0
        return None

    async def _write_down(self, desk: Desk, owner: Owner) -> None:
        while desk.noted:
            given, decision = desk.noted[0]
            if desk.recording is None:
                await self._read_back(desk, owner, given, decision)
            del desk.noted[0]
            desk.advance(given, decision)
        for subject in tuple(desk.unwritten):
            await self._write(desk, owner, subject)
        if desk.is_new:
            await self._close_what_was_left_open(desk, owner)
            desk.is_new = False

    async def _read_back(self, desk: Desk, owner: Owner, given: Input, decision: Decision) -> None:
        """Goes on with the record of a rollout that began under another operator."""
        subject = recording.subject_of(given.status, decision.status)
        if given.status.rollout is None or subject is None or subject.period is Period.GUARD:
            return
        found = await records.read(self._api, owner, records.name_of(owner, subject))
        if found is None:
            return
        record, version = found
        if record is None or record.outcome is not None:
            desk.left_alone = subject
            return
        desk.recording = recording.resumed(record)
        desk.versions[subject] = version

    async def _write(self, desk: Desk, owner: Owner, subject: Subject) -> None:
        record = desk.unwritten[subject].stored()
        try:
            version = await records.write(self._api, owner, record, desk.versions.get(subject))
        except (kubernetes_api.ConflictError, kubernetes_api.NotFoundError):
            # Somebody has changed, made or deleted it: the next try starts from what is there now.
            desk.versions.pop(subject, None)
            found = await records.read(self._api, owner, records.name_of(owner, subject))
            if found is not None and found[0] is not None and found[0].outcome is None:
                desk.versions[subject] = found[1]
            elif found is not None:
                del desk.unwritten[subject]
                desk.left_alone = subject
            raise
        desk.wrote(subject, version)
        if record.outcome is not None:
            await records.prune(self._api, owner, keep=desk.latest[0].spec.rollout.history_limit)

    async def _close_what_was_left_open(self, desk: Desk, owner: Owner) -> None:
        """Closes records whose end an earlier operator did not come to write, by what status says of it."""
        present = desk.recording and records.name_of(owner, desk.recording.subject)
        for name in await records.unfinished(self._api, owner):
            found = None if name == present else await records.read(self._api, owner, name)
            if found is not None and found[0] is not None and found[0].outcome is None:
                closed = recording.closed(found[0], desk.latest[1].status, now=self._now())
                await records.write(self._api, owner, closed, found[1])
