"""Worlds whose rollouts are recorded, as the operator does it."""

import json
from typing import Any

from tests.operator.worlds import World, spec

from kedge.api.records import Record
from kedge.api.statuses import ModelDeploymentStatus
from kedge.decide import differences, recording
from kedge.decide.decisions import Decision
from kedge.decide.recording import Recording

GUARD = {"guard": {"durationSeconds": 600, "warmReplicas": 1}}


class RecordedWorld(World):
    """A world with an operator that keeps records, whose API server gives JSON back in its own way."""

    def __init__(self, declared: Any = None) -> None:
        super().__init__(declared)
        self.recording: Recording | None = None
        self.records: list[Record] = []
        """Of all rollouts, and of guards that ended in a rollback, as they are stored."""
        self.stored: Record | None = None
        """The record of the present rollout as it was last stored."""
        self.trail: list[Any] = []
        """Status and judgements of every decision."""

    def decide(self) -> Decision:
        decision = super().decide()
        self.recording = recording.advance(self.recording, self.given(), decision)
        if self.recording is not None and self.recording.is_news and self.recording.is_to_be_kept:
            self.stored = self.recording.stored()
            if self.stored.outcome is not None:
                self.records.append(self.stored)
        self.trail.append((decision.status.to_json(), decision.judgements, decision.events))
        return decision

    def tick(self, seconds: float = 5.0) -> Decision:
        decision = super().tick(seconds)
        written = differences.canonical(json.loads(json.dumps(decision.status.to_json())))
        self.status = ModelDeploymentStatus.model_validate(written)
        return decision

    def restart_operator(self) -> None:
        """Lets another process take over, which knows what is stored and nothing else."""
        going_on = self.recording is not None and self.recording.is_to_be_kept and self.stored is not None
        if not going_on or self.stored is None or self.stored.outcome is not None:
            self.recording = None
        else:
            self.recording = recording.resumed(through_json(self.stored))


def through_json(record: Record) -> Record:
    """Returns a record as the API server gives it back."""
    return Record.model_validate(json.loads(json.dumps(differences.canonical(record.to_json()))))


def rolled_out(version: str = "2", **changes: Any) -> RecordedWorld:
    """Returns a world whose second version has been promoted."""
    world = RecordedWorld(spec("1", **changes))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec(version, **changes))
    world.run_until(lambda w: w.status.stable_revision == w.declared, requests=400)
    return world


def rolled_back(bad: float = 0.2, **changes: Any) -> RecordedWorld:
    """Returns a world whose second version has been rolled back."""
    world = RecordedWorld(spec("1", **changes))
    world.run_until(lambda w: w.condition("Ready") == "True")
    world.declare(spec("2", **changes))
    world.run_until(lambda w: w.status.rejected_revisions, requests=400, bad=bad)
    return world
