"""What must have come true, and how it is told."""

from hack.demo.story import Story
from hack.lab import journal
from hack.lab.traffic import Report

REJECTED = {"Available": "True", "RolledBack": "True", "Degraded": "True", "Stalled": "True", "Ready": "False"}
MOST_LOST = 60
"""More lost requests than this, and the rollback came too late to be called one."""
MOST_RIGHT_PERCENT = 75
"""A version that is right more often than this would not be worth the rollback that the story tells of."""


def check(story: Story) -> list[tuple[str, bool]]:
    """Returns each expectation with whether it came true."""
    first, better = story.first.status["stableRevision"], story.better.status["stableRevision"]
    users, before_bad = story.users, story.better.users
    conditions = journal.conditions(story.bad.status)
    told, told_of_silent = (journal.condition(one.status, "RolledBack") for one in (story.bad, story.silent))
    silent = story.silent.status["rejectedRevisions"][-1]
    return [
        ("v2 took the place of v1", better != first),
        ("no request was lost until v2 had all the traffic", before_bad is not None and before_bad.lost == 0),
        ("v2 is more often right than v1", users.right_percent(better) > users.right_percent(first)),
        ("v3 was rolled back by its measured requests", told.get("reason") == "ObjectiveFailed"),
        ("v2 serves on", story.bad.status["stableRevision"] == better),
        ("the conditions say so", conditions.items() >= REJECTED.items()),
        ("v2 had all its pods ready all along", story.lowest_ready >= story.better.status["readyReplicas"]),
        ("only answers of v3 were lost", users.lost == users.outcome("server_error") == story.calm.lost),
        (f"at most {MOST_LOST} requests were lost", users.lost <= MOST_LOST),
        ("v4 was wrong often and failed never", users.right_percent(silent["revision"]) < MOST_RIGHT_PERCENT),
        ("v4 was rolled back by what it answered", silent.get("objective") == "answers" and told_of_silent != told),
        ("the last answers were good ones of v2", users.stable_answers_last(better)),
    ]


def figures(story: Story) -> str:
    """Returns what happened, in figures."""
    first, better = story.first.status["stableRevision"], story.better.status["stableRevision"]
    rejected = story.bad.status["rejectedRevisions"][-1]["revision"]
    users = story.users
    span = users.span_of(rejected)
    seconds = f"{span[1] - span[0]:.1f} s" if span else "no answer at all"
    silent = story.silent.status["rejectedRevisions"][-1]["revision"]
    times = f"half within {users.milliseconds('p50'):g} ms, 99 % within {users.milliseconds('p99'):g} ms"
    lines = [
        f"v1 {first}: ready after {story.first.seconds:.0f} s; {_quality(users, first)}",
        f"v2 {better}: promoted after {story.better.seconds:.0f} s; {_quality(users, better)}",
        f"v3 {rejected}: rolled back after {story.bad.seconds:.0f} s; from its first answer to its last: {seconds}",
        f"v4 {silent}: rolled back after {story.silent.seconds:.0f} s; {_quality(users, silent)}, and not one error",
        f"users sent {users.sent} requests: {users.outcome('ok')} answered ({times}), {users.lost} lost",
    ]
    lines += [f"  lost {count}: {cause}" for cause, count in users.causes.items()]
    return "\n".join(lines)


def _quality(users: Report, revision: str) -> str:
    return f"{users.answers(revision)} answers, {users.right_percent(revision):.1f} % right"
