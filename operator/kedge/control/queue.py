"""The keyed queue: one worker a key at a time, requests that arrive meanwhile become one, errors back off."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from enum import Enum
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0
CONCURRENCY = 16
"""Keys handled at once. Handling is waiting for the API server and for pods, not computing."""


class Done(Enum):
    """What a handler answers instead of seconds until it wants to be called again."""

    UNTIL_NEWS = "until news"
    """Nothing to do before the key is added again."""
    FORGET = "forget"
    """There is no such key any more."""


K = TypeVar("K", bound=Hashable)


class KeyedQueue(Generic[K]):
    """Calls a handler for each key that was added, and again when the handler asked for it."""

    def __init__(self, handle: Callable[[K], Awaitable[float | Done]], *, failed: Callable[[K], None]) -> None:
        self._handle = handle
        self._failed = failed
        self._news: dict[K, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(CONCURRENCY)

    def add(self, key: K) -> None:
        """Asks for the key to be handled soon; asking twice before it begins is asking once."""
        news = self._news.get(key)
        if news is None:
            news = self._news[key] = asyncio.Event()
            task = asyncio.create_task(self._work(key, news), name=f"reconcile {key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        news.set()

    async def close(self) -> None:
        """Ends all work; a handler that runs is interrupted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, key: K, news: asyncio.Event) -> None:
        failures = 0
        while True:
            news.clear()
            try:
                async with self._slots:
                    answer = await self._handle(key)
                failures = 0
            except Exception:
                # Whatever went wrong with one object must not stop the others: it is told, and tried again.
                logger.exception("cannot reconcile %s", key)
                self._failed(key)
                answer = _backoff(failures)
                failures += 1
            if answer is Done.FORGET and not news.is_set():
                del self._news[key]
                return
            await _wait(news, None if isinstance(answer, Done) else answer)


async def _wait(news: asyncio.Event, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await news.wait()


def _backoff(failures: int) -> float:
    longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16))
    # Jitter keeps keys that failed together from coming back together.
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
