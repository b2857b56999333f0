from hypothesis import given
from hypothesis import strategies as st

from kedge.api.statuses import Memory
from kedge.decide import counting
from kedge.observe.snapshot import EventCounts, Sample, Snapshot

KEY = "availability"


def sample(total: int, bad: int = 0, *, uid: str = "a", revision: str = "new", started_at: str = "1") -> Sample:
    return Sample(uid, revision, started_at, {KEY: EventCounts(bad, total)})


def counted(*readings: Sample) -> tuple[int, int]:
    memory = Memory()
    for reading in readings:
        memory = counting.count(memory, Snapshot(samples=(reading,)), candidate="new").memory
    sums = counting.of(memory, KEY, readings[-1].revision)
    return sums.bad, sums.total


def test_the_candidates_pods_are_counted_from_zero() -> None:
    assert counted(sample(10, 3)) == (3, 10)


def test_other_pods_are_counted_from_their_first_reading() -> None:
    assert counted(sample(10, 3, revision="old"), sample(15, 4, revision="old")) == (1, 5)


def test_a_reading_that_comes_twice_counts_once() -> None:
    assert counted(sample(10, 3), sample(10, 3)) == (3, 10)


def test_a_late_reading_of_the_same_process_is_ignored() -> None:
    assert counted(sample(10, 3), sample(8, 2), sample(12, 3)) == (3, 12)


def test_a_restarted_process_counts_from_zero() -> None:
    assert counted(sample(10, 3), sample(4, 1, started_at="2")) == (4, 14)


def test_a_restart_is_seen_even_when_the_new_counter_is_higher() -> None:
    assert counted(sample(10, 3), sample(12, 0, started_at="2")) == (3, 22)


def test_a_page_without_start_time_restarts_when_its_counter_goes_back() -> None:
    assert counted(sample(10, 3, started_at=""), sample(4, 1, started_at="")) == (4, 14)


def test_a_page_that_lacks_the_indicator_for_once_is_not_counted_anew() -> None:
    bare = Sample("a", "new", "1", {})
    assert counted(sample(10, 3), bare, sample(12, 3)) == (3, 12)


def test_a_pod_that_vanishes_and_returns_is_not_counted_twice() -> None:
    memory = Memory()
    for samples in ((sample(10, 3),), (), (sample(11, 3),)):
        memory = counting.count(memory, Snapshot(samples=samples), candidate="new").memory
    assert counting.of(memory, KEY, "new").total == 11


Steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["serve", "restart", "read", "duplicate", "reorder", "miss"]),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    max_size=60,
)


@given(Steps)
def test_no_sequence_of_readings_counts_what_was_not_served(steps: list[tuple[str, str, int, int]]) -> None:
    """Restarts may lose what was never read; nothing may be counted twice or taken back."""
    live = {uid: [0, 0, 1] for uid in "abc"}
    served = {uid: [0, 0] for uid in "abc"}
    history: dict[str, list[Sample]] = {uid: [] for uid in "abc"}
    memory, before = Memory(), (0, 0)
    for uid, action, bad, good in steps:
        if action == "serve":
            for totals in (live[uid], served[uid]):
                totals[0] += bad
                totals[1] += bad + good
        elif action == "restart":
            live[uid] = [0, 0, live[uid][2] + 1]
            history[uid] = []
        else:
            current = sample(live[uid][1], live[uid][0], uid=uid, started_at=str(live[uid][2]))
            readings = {"read": (current,), "duplicate": (current, current), "miss": ()}
            late = (*history[uid][-1:], current, *history[uid][-1:])
            for reading in readings.get(action, late):
                memory = counting.count(memory, Snapshot(samples=(reading,)), candidate="new").memory
                history[uid].append(reading)
        sums = counting.of(memory, KEY, "new")
        assert before <= (sums.bad, sums.total)
        assert sums.bad <= sum(totals[0] for totals in served.values())
        assert sums.total <= sum(totals[1] for totals in served.values())
        assert sums.bad <= sums.total
        before = (sums.bad, sums.total)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=20), st.integers(1, 4))
def test_splitting_traffic_over_pods_or_polls_changes_no_sum(polls: list[tuple[int, int]], pods: int) -> None:
    whole, split = Memory(), Memory()
    bad = total = 0
    parts = {f"pod-{index}": [0, 0] for index in range(pods)}
    for turn, (more_bad, more_good) in enumerate(polls):
        bad, total = bad + more_bad, total + more_bad + more_good
        part = parts[f"pod-{turn % pods}"]
        part[0] += more_bad
        part[1] += more_bad + more_good
        readings = tuple(sample(totals[1], totals[0], uid=uid) for uid, totals in parts.items())
        split = counting.count(split, Snapshot(samples=readings), candidate="new").memory
    whole = counting.count(whole, Snapshot(samples=(sample(total, bad),)), candidate="new").memory
    assert counting.of(whole, KEY, "new") == counting.of(split, KEY, "new")


def test_what_stables_pods_counted_before_is_told_once_and_apart() -> None:
    reading = Snapshot(samples=(sample(1000, 30, revision="old"),))
    first = counting.count(Memory(), reading, candidate="new")
    assert first.increments == ()
    assert first.past == (counting.Increment("availability", "old", 30, 1000),)
    assert counting.count(first.memory, reading, candidate="new").past == ()
