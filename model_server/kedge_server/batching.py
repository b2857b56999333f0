"""Hands requests to one worker thread, together when it was busy, never waiting when idle.

A lone request starts at once. Requests that arrive while a batch is being predicted
form the next batch, so batches grow by themselves exactly when there is load, and no
time window has to be tuned. Everything here runs on the event loop except `_work`.
"""

from __future__ import annotations

import asyncio
import collections
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence

from kedge_server import protocol
from kedge_server.errors import ExpiredError, OverloadedError, RequestError
from kedge_server.predicting import Outcome

Run = Callable[[Sequence[protocol.InferRequest]], list[Outcome]]


class _Job:
    """One request between its arrival and its outcome."""

    __slots__ = ("deadline", "future", "request")

    def __init__(self, request: protocol.InferRequest, future: asyncio.Future[Outcome], deadline: float) -> None:
        self.request = request
        self.future = future
        self.deadline = deadline


class Batcher:
    """The queue in front of the worker thread.

    Args:
        run: Predicts a batch; called in the worker thread, must not raise.
        max_batch_rows: A batch grows to this many rows; one larger request runs alone.
        max_queue_rows: More waiting rows than this are refused.
        timeout_seconds: A request's time from `submit` to its outcome.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch_rows: int,
        max_queue_rows: int,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._max_batch_rows = max_batch_rows
        self._max_queue_rows = max_queue_rows
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[_Job] = collections.deque()
        self._running: list[_Job] = []
        self._batch_started = 0.0
        self._seconds_a_row = 0.0
        self._work: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="predict", daemon=True)
        self._thread.start()
        self.queued_rows = 0
        # Told the rows and the seconds of each finished batch.
        self.on_batch: Callable[[int, float], None] | None = None

    @property
    def idle(self) -> bool:
        """Tells whether nothing runs and nothing waits."""
        return not self._running and not self._waiting

    def submit(self, request: protocol.InferRequest) -> asyncio.Future[Outcome]:
        """Starts or queues `request`; the future's result is its outcome.

        Raises:
            OverloadedError: The queue has no room for its rows.
        """
        count = request.rows.count
        if self._waiting:
            self.check_room(count)
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting.append(_Job(request, future, self._clock() + self._timeout_seconds))
        self.queued_rows += count
        if not self._running:
            self._start_batch()
        return future

    def check_room(self, rows: int) -> None:
        """Refuses early what `submit` would refuse, before it costs any decoding.

        Raises:
            OverloadedError: The queue has no room for `rows` more.
        """
        if self.queued_rows + rows > self._max_queue_rows:
            raise OverloadedError(
                f"{self.queued_rows} rows are waiting, which is as many as this server holds",
                self.retry_after_seconds(),
            )

    def retry_after_seconds(self) -> int:
        """Estimates when what waits now will be done, between 1 and 60 seconds."""
        return min(60, max(1, math.ceil(self.queued_rows * self._seconds_a_row)))

    def expire(self) -> None:
        """Ends every request whose time is up; to be called a few times a second.

        The worker cannot be interrupted, so the rows of a running batch stay there, but
        nobody waits for them any more.
        """
        now = self._clock()
        while self._waiting and self._waiting[0].deadline <= now:
            job = self._waiting.popleft()
            self.queued_rows -= job.request.rows.count
            _resolve(job, OverloadedError("the request waited for its whole time", self.retry_after_seconds()))
        for job in self._running:
            if job.deadline <= now:
                _resolve(job, ExpiredError(f"the model took more than {self._timeout_seconds:g} seconds"))

    def close(self) -> None:
        """Ends the worker thread after the batch that it holds."""
        self._work.put(None)

    def _start_batch(self) -> None:
        batch: list[_Job] = []
        rows = 0
        while self._waiting:
            job = self._waiting[0]
            if batch and rows + job.request.rows.count > self._max_batch_rows:
                break
            self._waiting.popleft()
            # Nobody waits for a cancelled request: its client has gone.
            if job.future.done():
                self.queued_rows -= job.request.rows.count
                continue
            batch.append(job)
            rows += job.request.rows.count
        self.queued_rows -= rows
        self._running = batch
        if batch:
            self._batch_started = self._clock()
            self._work.put(batch)

    def _finish_batch(self, batch: list[_Job], outcomes: list[Outcome]) -> None:
        rows = sum(job.request.rows.count for job in batch)
        seconds = self._clock() - self._batch_started
        self._seconds_a_row += 0.2 * (seconds / rows - self._seconds_a_row)
        # The worker gets its next batch before this one is answered.
        self._start_batch()
        for job, outcome in zip(batch, outcomes, strict=True):
            _resolve(job, outcome)
        if self.on_batch is not None:
            self.on_batch(rows, seconds)

    def _serve(self) -> None:
        while (batch := self._work.get()) is not None:
            outcomes = self._run([job.request for job in batch])
            try:
                self._loop.call_soon_threadsafe(self._finish_batch, batch, outcomes)
            except RuntimeError:
                # The loop was closed: the process is ending.
                return


def _resolve(job: _Job, outcome: list[protocol.Output] | RequestError) -> None:
    if not job.future.done():
        job.future.set_result(outcome)
