from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tests.model_server import support

from kedge_server import batching, pace, predicting, protocol
from kedge_server.errors import ExpiredError, Fault, ModelError, OverloadedError
from kedge_server.settings import Limits


class Gate:
    """Holds the worker in its batch until told to go on, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def around(self, run: batching.Run) -> batching.Run:
        def gated(requests: Sequence[protocol.InferRequest]) -> list[predicting.Outcome]:
            self.batches.append([r.rows.count for r in requests])
            self.entered.release()
            assert self.go_on.acquire(timeout=20)
            return run(requests)

        return gated


def request(rows: int = 1, value: float = 0.0) -> protocol.InferRequest:
    return protocol.InferRequest(None, protocol.Rows(rows, matrix=np.full((rows, 1), value)), ("predict",))


def echo(requests: Sequence[protocol.InferRequest]) -> list[predicting.Outcome]:
    return [[("predict", r.rows.matrix)] for r in requests if r.rows.matrix is not None]


def make(run: batching.Run, **changes: Any) -> batching.Batcher:
    """By default each batch takes too long for the loop, and little enough for many rows."""
    clock = itertools.count(step=2 * batching.BRIEF_SECONDS).__next__
    options: dict[str, Any] = {
        "max_batch_rows": 8,
        "max_queue_rows": 8,
        "max_queue_bytes": 1000,
        "timeout_seconds": 20.0,
    }
    return batching.Batcher(run, **(options | {"clock": clock, "pace": quick()} | changes))


def quick() -> pace.Pace:
    known = pace.Pace()
    known.add(8, 2 * batching.BRIEF_SECONDS)
    return known


def ask(batcher: batching.Batcher, asked: protocol.InferRequest, size: int = 1) -> asyncio.Future[predicting.Outcome]:
    future: asyncio.Future[predicting.Outcome] = asyncio.get_running_loop().create_future()
    batcher.submit(asked, lambda _, outcome: future.set_result(outcome), size)
    return future


async def test_a_lone_request_starts_at_once() -> None:
    gate = Gate()
    batcher = make(gate.around(echo))
    future = ask(batcher, request(value=3.0))
    # Nothing else happens, and no time passes for the loop, before the worker has it.
    await asyncio.sleep(0)
    assert gate.entered.acquire(timeout=20)
    gate.go_on.release()
    outcome = await future
    assert isinstance(outcome, list)
    assert outcome[0][1].tolist() == [[3.0]]
    assert batcher.idle
    batcher.close()


async def test_what_arrives_together_starts_together() -> None:
    gate = Gate()
    batcher = make(gate.around(echo))
    futures = [ask(batcher, request()) for _ in range(6)]
    gate.go_on.release()
    await asyncio.gather(*futures)
    assert gate.batches == [[1] * 6]
    batcher.close()


async def test_who_asks_again_when_answered_is_in_the_next_batch() -> None:
    gate = Gate()
    batcher = make(gate.around(echo))
    again: list[asyncio.Future[predicting.Outcome]] = []
    batcher.submit(request(), lambda *_: again.append(ask(batcher, request())), 1)
    await start(gate)
    waiting = ask(batcher, request())
    gate.go_on.release(2)
    await waiting
    await again[0]
    assert gate.batches == [[1], [1, 1]]
    batcher.close()


async def test_a_cancelled_request_is_not_predicted() -> None:
    gate = Gate()
    batcher = make(gate.around(echo))
    told: list[predicting.Outcome] = []
    batcher.submit(request(), lambda _, outcome: told.append(outcome), 1).cancel()
    await ask_through(gate, batcher, request(2))
    assert gate.batches == [[2]]
    assert told == []
    assert batcher.queued_rows == 0
    batcher.close()


class Model:
    """Takes as long as it is told on a clock of its own, and remembers in which threads it ran."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes = batching.BRIEF_SECONDS / 2
        self.on_loop: list[bool] = []
        self.batches: list[int] = []

    def run(self, requests: Sequence[protocol.InferRequest]) -> list[predicting.Outcome]:
        self.now += self.takes
        self.on_loop.append(threading.current_thread() is threading.main_thread())
        self.batches.append(len(requests))
        return [[("predict", np.zeros(r.rows.count))] for r in requests]

    def behind_a_batcher(self, **changes: Any) -> batching.Batcher:
        options: dict[str, Any] = {"clock": lambda: self.now, "timeout_seconds": 1e6, "pace": None}
        return make(self.run, **(options | changes))


async def test_what_was_brief_lately_is_predicted_without_a_change_of_threads() -> None:
    model = Model()
    batcher = model.behind_a_batcher()
    for _ in range(3):
        assert isinstance(await ask(batcher, request()), list)
    # Nothing is known of the first.
    assert model.on_loop == [False, True, True]
    assert batcher.idle
    batcher.close()


async def test_one_slow_batch_sends_its_like_to_the_worker_until_they_are_brief_again() -> None:
    model = Model()
    batcher = model.behind_a_batcher()
    await ask(batcher, request())
    model.takes = 5 * batching.BRIEF_SECONDS
    await ask(batcher, request())
    model.takes = batching.BRIEF_SECONDS / 2
    for _ in range(40):
        await ask(batcher, request())
    assert model.on_loop[:12] == [False, True, *[False] * 10]
    assert model.on_loop[-1]
    batcher.close()


async def test_more_rows_than_have_been_brief_go_to_the_worker() -> None:
    model = Model()
    batcher = model.behind_a_batcher()
    for rows in (1, 1, 2, 3, 4):
        await ask(batcher, request(rows))
    assert model.on_loop == [False, True, False, True, False]
    batcher.close()


async def test_rows_that_are_not_just_numbers_always_go_to_the_worker() -> None:
    model = Model()
    batcher = model.behind_a_batcher()
    text = protocol.Rows(1, matrix=np.array(["a"], dtype=object))
    frame = protocol.Rows(1, columns=(np.array([1.0]),))
    for rows in (text, frame) * 2:
        batcher.submit(protocol.InferRequest(None, rows, ("predict",)), lambda *_: None, 1)
        await support.wait_for(lambda: batcher.idle)
    assert model.on_loop == [False] * 4
    batcher.close()


async def test_of_a_model_of_which_nothing_is_known_one_row_is_predicted_first() -> None:
    model = Model()
    batcher = model.behind_a_batcher(max_batch_rows=1000, max_queue_rows=1000)
    await asyncio.gather(*(ask(batcher, request()) for _ in range(31)))
    assert model.batches == [1, 3, 7, 15, 5]
    batcher.close()


async def start(gate: Gate) -> None:
    """Returns when the worker is in its batch."""
    await support.wait_for(lambda: gate.entered.acquire(blocking=False))


async def ask_through(gate: Gate, batcher: batching.Batcher, asked: protocol.InferRequest) -> predicting.Outcome:
    gate.go_on.release()
    return await ask(batcher, asked)


async def test_what_arrives_while_the_worker_is_busy_makes_the_next_batch() -> None:
    gate = Gate()
    batcher = make(gate.around(echo))
    futures = [ask(batcher, request(value=0.0))]
    await start(gate)
    futures += [ask(batcher, request(value=float(i))) for i in range(1, 6)]
    assert batcher.queued_rows == 5
    gate.go_on.release(2)
    outcomes = await asyncio.gather(*futures)
    assert gate.batches == [[1], [1, 1, 1, 1, 1]]
    assert [o[0][1].item() for o in outcomes if isinstance(o, list)] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert batcher.queued_rows == 0
    batcher.close()


async def test_a_batch_stops_at_its_row_limit_and_a_larger_request_runs_alone() -> None:
    gate = Gate()
    batcher = make(gate.around(echo), max_queue_rows=100)
    futures = [ask(batcher, request(rows)) for rows in (5, 3, 1, 50, 2)]
    gate.go_on.release(10)
    await asyncio.gather(*futures)
    assert gate.batches == [[5, 3], [1], [50], [2]]
    batcher.close()


async def test_a_full_queue_refuses_with_the_time_to_come_back() -> None:
    gate = Gate()
    batcher = make(gate.around(echo), max_queue_rows=2)
    futures = [ask(batcher, request())]
    await start(gate)
    futures += [ask(batcher, request()) for _ in range(2)]
    with pytest.raises(OverloadedError) as refused:
        ask(batcher, request())
    assert 1 <= refused.value.retry_after_seconds <= 60
    gate.go_on.release(10)
    await asyncio.gather(*futures)
    await ask(batcher, request())
    batcher.close()


async def test_a_queue_is_full_by_its_requests_bytes_too() -> None:
    gate = Gate()
    batcher = make(gate.around(echo), max_queue_bytes=100)
    futures = [ask(batcher, request(), size=1000)]
    await start(gate)
    futures.append(ask(batcher, request(), size=200))
    with pytest.raises(OverloadedError, match="200 bytes"):
        batcher.check_room(1, 1)
    with pytest.raises(OverloadedError, match="200 bytes"):
        ask(batcher, request(), size=1)
    gate.go_on.release(10)
    await asyncio.gather(*futures)
    batcher.check_room(1, 1000)
    batcher.close()


async def test_nothing_is_started_or_answered_after_its_time_though_nobody_has_looked() -> None:
    now = [0.0]
    gate = Gate()
    batcher = make(gate.around(echo), timeout_seconds=5.0, clock=lambda: now[0])
    running = ask(batcher, request())
    await start(gate)
    waiting, other = ask(batcher, request()), ask(batcher, request())
    now[0] = 5.0
    gate.go_on.release()
    assert isinstance(await running, ExpiredError)
    assert isinstance(await waiting, OverloadedError)
    assert isinstance(await other, OverloadedError)
    assert gate.batches == [[1]]
    batcher.close()


async def test_a_request_ends_when_its_time_is_up_waiting_or_running() -> None:
    now = [0.0]
    gate = Gate()
    batcher = make(gate.around(echo), timeout_seconds=5.0, clock=lambda: now[0])
    running = ask(batcher, request())
    await start(gate)
    waiting = ask(batcher, request())
    now[0] = 4.9
    batcher.expire()
    assert not running.done()
    assert not waiting.done()
    now[0] = 5.0
    batcher.expire()
    assert isinstance(await running, ExpiredError)
    assert isinstance(await waiting, OverloadedError)
    assert batcher.queued_rows == 0
    now[0] = 6.0
    later = ask(batcher, request(value=9.0))
    gate.go_on.release(10)
    outcome = await later
    assert isinstance(outcome, list)
    batcher.close()


class Picky:
    """Raises on a negative number in its only feature; counts the calls."""

    n_features_in_ = 1

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, rows: Any) -> Any:
        self.calls.append(len(rows))
        if (np.asarray(rows) < 0).any():
            raise KeyError("negative")
        return rows[:, 0] * 2


def predictor(model: Any) -> predicting.Predictor:
    loaded = support.loaded(model)
    return predicting.Predictor(loaded.estimator, loaded.signature)


def test_one_bad_request_does_not_fail_its_neighbours() -> None:
    model = Picky()
    outcomes = predictor(model).run([request(value=1.0), request(value=-1.0), request(2, value=3.0)])
    assert isinstance(outcomes[1], ModelError)
    assert outcomes[1].fault is Fault.SERVER
    assert [o[0][1].tolist() for o in outcomes if isinstance(o, list)] == [[2.0], [6.0, 6.0]]
    assert model.calls == [4, 1, 1, 2]


def test_requests_for_other_outputs_share_a_batch_without_mixing(iris: Any) -> None:
    rows = support.IRIS[:3]
    requests = [
        protocol.InferRequest(None, protocol.Rows(1, matrix=rows[:1]), ("predict",)),
        protocol.InferRequest(None, protocol.Rows(1, matrix=rows[1:2]), ("predict_proba",)),
        protocol.InferRequest(None, protocol.Rows(1, matrix=rows[2:]), ("predict",)),
    ]
    outcomes = predictor(iris).run(requests)
    assert [o[0][0] for o in outcomes if isinstance(o, list)] == ["predict", "predict_proba", "predict"]
    assert isinstance(outcomes[1], list)
    assert np.allclose(outcomes[1][0][1], iris.predict_proba(rows[1:2]))


@pytest.mark.parametrize(
    "answer", [lambda rows: [1.0], lambda rows: 3.0, lambda rows: np.zeros(99)], ids=["list", "scalar", "too many"]
)
def test_an_answer_that_does_not_fit_the_rows_is_the_model_s_fault(answer: Callable[[Any], Any]) -> None:
    class Liar:
        n_features_in_ = 1

        def predict(self, rows: Any) -> Any:
            return answer(rows)

    assert isinstance(predictor(Liar()).run([request(2)])[0], ModelError)


async def test_probes_and_metrics_answer_while_the_worker_is_stuck(iris: Any) -> None:
    gate = Gate()
    limits = Limits(max_queue_rows=2)
    async with support.served(iris, limits, run=gate.around) as server:
        pending = [asyncio.create_task(server.infer(support.iris_body()))]
        await start(gate)
        pending += [asyncio.create_task(server.infer(support.iris_body())) for _ in range(2)]
        await support.wait_for(lambda: server.batcher.queued_rows == 2)
        refused = await server.infer(support.iris_body())
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert (await server.client.get("/v2/health/ready")).status_code == 200
        page = (await server.client.get("/metrics")).text
        assert 'kedge_server_queue_rows{model="m"} 2' in page
        gate.go_on.release(10)
        assert [r.status_code for r in await asyncio.gather(*pending)] == [200] * 3
        assert server.counted() == {"none": 3, "client": 0, "server": 0, "overload": 1}
