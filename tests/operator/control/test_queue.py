import asyncio

import pytest

from kedge.control import queue
from kedge.control.queue import Done, KeyedQueue


async def test_a_key_is_never_handled_twice_at_once_and_late_news_are_not_lost() -> None:
    running, most, passes = 0, 0, 0
    go_on = asyncio.Event()
    twice = asyncio.Event()

    async def handle(key: str) -> Done:
        nonlocal running, most, passes
        running += 1
        most = max(most, running)
        await go_on.wait()
        running -= 1
        passes += 1
        if passes == 2:
            twice.set()
        return Done.UNTIL_NEWS

    work = KeyedQueue[str](handle, failed=lambda _: None)
    work.add("a")
    await asyncio.sleep(0)
    work.add("a")
    work.add("a")
    go_on.set()
    async with asyncio.timeout(5):
        await twice.wait()
    await work.close()
    assert (most, passes) == (1, 2)


async def test_keys_do_not_wait_for_each_other() -> None:
    both = asyncio.Barrier(3)

    async def handle(key: str) -> Done:
        await both.wait()
        return Done.UNTIL_NEWS

    work = KeyedQueue[str](handle, failed=lambda _: None)
    work.add("a")
    work.add("b")
    async with asyncio.timeout(5):
        await both.wait()
    await work.close()


async def test_a_handler_is_called_again_after_the_time_it_asked_for() -> None:
    passes = 0
    enough = asyncio.Event()

    async def handle(key: str) -> float:
        nonlocal passes
        passes += 1
        if passes == 3:
            enough.set()
        return 0.001

    work = KeyedQueue[str](handle, failed=lambda _: None)
    work.add("a")
    async with asyncio.timeout(5):
        await enough.wait()
    await work.close()


async def test_an_error_is_told_and_tried_again_and_stops_no_other_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue, "FIRST_BACKOFF_SECONDS", 0.001)
    failed: list[str] = []
    well: list[str] = []
    done = asyncio.Event()

    async def handle(key: str) -> Done:
        if key == "bad" and len(failed) < 2:
            raise RuntimeError("trouble")
        well.append(key)
        if set(well) == {"bad", "good"}:
            done.set()
        return Done.UNTIL_NEWS

    work = KeyedQueue[str](handle, failed=failed.append)
    work.add("bad")
    work.add("good")
    async with asyncio.timeout(5):
        await done.wait()
    await work.close()
    assert failed == ["bad", "bad"]
    assert "cannot reconcile bad" in caplog.text


def test_errors_back_off_up_to_a_limit() -> None:
    delays = [queue._backoff(failures) for failures in range(40)]
    assert queue.FIRST_BACKOFF_SECONDS / 2 <= delays[0] <= queue.FIRST_BACKOFF_SECONDS
    assert max(delays) <= queue.LONGEST_BACKOFF_SECONDS
    assert min(delays[10:]) >= queue.LONGEST_BACKOFF_SECONDS / 2


async def test_a_forgotten_key_leaves_nothing_behind_and_can_come_back() -> None:
    passes = 0

    async def handle(key: str) -> Done:
        nonlocal passes
        passes += 1
        return Done.FORGET

    work = KeyedQueue[str](handle, failed=lambda _: None)
    for wanted in (1, 2):
        work.add("a")
        await asyncio.gather(*work._tasks)
        assert passes == wanted
        assert not work._news
    await work.close()
