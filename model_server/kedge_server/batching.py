"""Predicts requests together when there are many, never waiting when there is one.

A lone request starts as soon as the event loop has looked at what else has already
arrived. Requests that arrive while a batch is being predicted form the next batch, so
batches grow by themselves exactly when there is load, and no time window has to be
tuned. Batches go to one worker thread, so that the loop answers probes meanwhile, except
for those that are over sooner than they could be handed over and back. Everything here
runs on the event loop except `_serve`.
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
from kedge_server.errors import ExpiredError, OverloadedError
from kedge_server.pace import Pace
from kedge_server.predicting import Outcome

Run = Callable[[Sequence[protocol.InferRequest]], list[Outcome]]
# Told a request and its outcome, on the event loop, never from within `submit`.
Done = Callable[[protocol.InferRequest, Outcome], None]


# No batch should take longer unless it pays: whoever comes just after its start waits for all of it.
BATCH_SECONDS = 0.05
# One that takes no longer holds up the loop less than a hand-over to the worker and back would hold up its answers:
# two changes of threads, each of which may have to wait for the interpreter's lock.
BRIEF_SECONDS = 0.001


class Job:
    """One request between its arrival and its outcome."""

    __slots__ = ("_done", "deadline", "request", "size")

    def __init__(self, request: protocol.InferRequest, done: Done, deadline: float, size: int) -> None:
        self.request = request
        self.deadline = deadline
        self.size = size
        self._done: Done | None = done

    @property
    def over(self) -> bool:
        """Tells whether nobody waits for the outcome any more."""
        return self._done is None

    def cancel(self) -> None:
        """Forgets the request; when it still waits, it is not predicted."""
        self._done = None

    def resolve(self, outcome: Outcome) -> None:
        """Tells the outcome, once."""
        done, self._done = self._done, None
        if done is not None:
            done(self.request, outcome)


class Batcher:
    """The queue in front of the model.

    Args:
        run: Predicts a batch, on the loop or in the worker thread, one batch at a time; must not raise.
        max_batch_rows: A batch grows to this many rows, or to `BATCH_SECONDS`; one larger request runs alone.
        max_queue_rows: More waiting rows than this are refused.
        max_queue_bytes: So are more bytes, as they came, than this.
        timeout_seconds: A request's time from `submit` to its outcome.
        clock: Monotonic seconds.
        pace: What is known of the model's speed. Where nothing is, one request goes first.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch_rows: int,
        max_queue_rows: int,
        max_queue_bytes: int,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
    ) -> None:
        self._run = run
        self._max_batch_rows = max_batch_rows
        self._max_queue_rows = max_queue_rows
        self._max_queue_bytes = max_queue_bytes
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[Job] = collections.deque()
        self._running: list[Job] = []
        self._starting = False
        self._batch_started = 0.0
        self._pace = pace or Pace()
        self._work: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="predict", daemon=True)
        self._thread.start()
        self.queued_rows = 0
        self._queued_bytes = 0
        # Told the rows and the seconds of each finished batch.
        self.on_batch: Callable[[int, float], None] | None = None

    @property
    def idle(self) -> bool:
        """Tells whether nothing runs and nothing waits."""
        return not self._running and not self._waiting

    def submit(self, request: protocol.InferRequest, done: Done, size: int) -> Job:
        """Starts or queues `request`, which came in `size` bytes; `done` is told its outcome.

        Raises:
            OverloadedError: The queue has no room for it.
        """
        if self._waiting:
            self.check_room(request.rows.count, size)
        job = Job(request, done, self._clock() + self._timeout_seconds, size)
        self._waiting.append(job)
        self.queued_rows += request.rows.count
        self._queued_bytes += size
        if not self._running:
            self._start_soon()
        return job

    def check_room(self, rows: int, size: int) -> None:
        """Refuses early what `submit` would refuse, before it costs any decoding.

        Raises:
            OverloadedError: The queue has no room for `rows` more, which come in `size` bytes.
        """
        if self.queued_rows + rows > self._max_queue_rows:
            raise OverloadedError(
                f"{self.queued_rows} rows are waiting, which is as many as this server holds",
                self.retry_after_seconds(),
            )
        if self._waiting and self._queued_bytes + size > self._max_queue_bytes:
            raise OverloadedError(
                f"requests of {self._queued_bytes} bytes are waiting, which is as much as this server holds",
                self.retry_after_seconds(),
            )

    def _next(self) -> Job:
        """Takes the request that has waited longest out of the queue."""
        job = self._waiting.popleft()
        self.queued_rows -= job.request.rows.count
        self._queued_bytes -= job.size
        return job

    def retry_after_seconds(self) -> int:
        """Estimates when what waits now will be done, between 1 and 60 seconds."""
        return min(60, max(1, math.ceil(self.queued_rows * self._pace.seconds_a_row)))

    def expire(self) -> None:
        """Ends every request whose time is up; to be called a few times a second.

        The worker cannot be interrupted, so the rows of a running batch stay there, but
        nobody waits for them any more.
        """
        now = self._clock()
        while self._waiting and self._waiting[0].deadline <= now:
            self._next().resolve(OverloadedError("the request waited for its whole time", self.retry_after_seconds()))
        for job in self._running:
            if job.deadline <= now:
                job.resolve(ExpiredError(f"the model took more than {self._timeout_seconds:g} seconds"))

    def close(self) -> None:
        """Ends the worker thread after the batch that it holds."""
        self._work.put(None)

    def _start_soon(self) -> None:
        """Starts a batch when the loop has read what lies in its sockets already.

        No time is waited: a loop that has nothing to read starts at once. But of fifty
        requests that came together, the first would else run alone, and the others
        wait for it.
        """
        if not self._starting:
            self._starting = True
            self._loop.call_soon(self._start_batch)

    def _start_batch(self) -> None:
        self._starting = False
        self.expire()
        batch: list[Job] = []
        rows = 0
        most = min(self._max_batch_rows, self._pace.rows_at_once(BATCH_SECONDS))
        while self._waiting:
            if batch and rows + self._waiting[0].request.rows.count > most:
                break
            job = self._next()
            if not job.over:
                batch.append(job)
                rows += job.request.rows.count
        self._running = batch
        if not batch:
            return
        self._batch_started = self._clock()
        if self._pace.worst(rows) <= BRIEF_SECONDS and all(job.request.rows.numeric for job in batch):
            self._finish_batch(batch, self._run([job.request for job in batch]))
        else:
            self._work.put(batch)

    def _finish_batch(self, batch: list[Job], outcomes: list[Outcome]) -> None:
        rows = sum(job.request.rows.count for job in batch)
        seconds = self._clock() - self._batch_started
        self._pace.add(rows, seconds)
        self.expire()
        self._running = []
        # Answers first: clients that ask again at once are then in the next batch.
        for job, outcome in zip(batch, outcomes, strict=True):
            job.resolve(outcome)
        if self.on_batch is not None:
            self.on_batch(rows, seconds)
        if self._waiting:
            self._start_soon()

    def _serve(self) -> None:
        while (batch := self._work.get()) is not None:
            outcomes = self._run([job.request for job in batch])
            try:
                self._loop.call_soon_threadsafe(self._finish_batch, batch, outcomes)
            except RuntimeError:
                # The loop was closed: the process is ending.
                return
