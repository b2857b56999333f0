import asyncio
from typing import Any

import pytest
from tests.operator.clusters import FakeApi

from kedge import kubernetes_api
from kedge.control import leadership
from kedge.control.leadership import Leadership, LeadershipLostError
from kedge.kubernetes_api import ApiError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "RENEW_SECONDS", 0.0)


def candidate(api: Any, identity: str, clock: Clock) -> Leadership:
    return Leadership(api, "kedge", identity, monotonic=clock, now=lambda: 1_800_000_000.0)


def holder(api: FakeApi) -> str:
    found: str = api.objects[kubernetes_api.LEASES, "kedge", leadership.LEASE_NAME]["spec"]["holderIdentity"]
    return found


async def test_the_first_to_come_leads_and_the_second_stands_by() -> None:
    api, clock = FakeApi(), Clock()
    await candidate(api, "a", clock).acquire()
    assert holder(api) == "a"
    assert not await candidate(api, "b", clock)._try_to_acquire()


async def test_a_released_lease_is_taken_at_once() -> None:
    api, clock = FakeApi(), Clock()
    first, second = candidate(api, "a", clock), candidate(api, "b", clock)
    await first.acquire()
    assert not await second._try_to_acquire()
    await first.release()
    await second.acquire()
    assert holder(api) == "b"


async def test_a_lease_is_abandoned_only_when_it_was_seen_unchanged_for_its_duration() -> None:
    api, clock = FakeApi(), Clock()
    first, second = candidate(api, "a", clock), candidate(api, "b", clock)
    await first.acquire()
    assert not await second._try_to_acquire()
    clock.now += leadership.DURATION_SECONDS - 1
    await first._try_to_acquire()
    assert not await second._try_to_acquire()
    clock.now += leadership.DURATION_SECONDS - 1
    assert not await second._try_to_acquire()
    clock.now += 2
    assert await second._try_to_acquire()
    assert holder(api) == "b"


async def test_a_leader_whose_lease_was_taken_stops() -> None:
    api, clock = FakeApi(), Clock()
    first = candidate(api, "a", clock)
    await first.acquire()
    api.objects[kubernetes_api.LEASES, "kedge", leadership.LEASE_NAME]["spec"]["holderIdentity"] = "b"
    with pytest.raises(LeadershipLostError, match="another instance"):
        async with asyncio.timeout(5):
            await first.keep()


async def test_a_leader_that_cannot_renew_stops_before_another_may_begin() -> None:
    clock = Clock()

    class Silent(FakeApi):
        async def get(self, *arguments: Any) -> dict[str, Any]:
            clock.now += 1
            raise ApiError("no answer")

    with pytest.raises(LeadershipLostError, match="not renewed in time"):
        async with asyncio.timeout(5):
            await candidate(Silent(), "a", clock).keep()
    assert clock.now < leadership.DURATION_SECONDS


async def test_two_that_claim_at_once_do_not_both_lead() -> None:
    api, clock = FakeApi(), Clock()
    await candidate(api, "old", clock).acquire()
    await candidate(api, "old", clock).release()
    stale = await candidate(api, "a", clock)._read()
    assert stale is not None
    await candidate(api, "b", clock)._write(stale)
    with pytest.raises(kubernetes_api.ConflictError):
        await candidate(api, "a", clock)._write(stale)
