"""Leadership by a Lease: one instance acts, the others watch and stand by.

Time is measured on the local monotonic clock only: a Lease counts as abandoned when *we* have seen no
change of it for its duration, whatever its timestamps say.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from kedge import kubernetes_api
from kedge.decide import times
from kedge.kubernetes_api import ApiError, KubernetesApi, NotFoundError, ObjectDict

logger = logging.getLogger(__name__)

LEASE_NAME = "kedge"
DURATION_SECONDS = 15
"""How long the others wait for a leader that went silent."""
RENEW_SECONDS = 2.0
RENEW_DEADLINE_SECONDS = 10.0
"""A leader that could not renew for this long stops acting, well before another one may begin."""


class LeadershipLostError(Exception):
    """The Lease could not be renewed in time: this process must stop acting."""


class Leadership:
    """This instance's claim to the Lease."""

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str,
        identity: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._monotonic = monotonic
        self._now = now
        self._seen: tuple[Any, float] | None = None

    async def acquire(self) -> None:
        """Returns once this instance is the leader."""
        while True:
            try:
                if await self._try_to_acquire():
                    logger.info("this instance, %s, is the leader", self._identity)
                    return
            except ApiError as error:
                logger.warning("cannot claim the Lease: %s", error)
            await asyncio.sleep(RENEW_SECONDS)

    async def keep(self) -> None:
        """Renews the Lease for as long as that succeeds.

        Raises:
            LeadershipLostError: It did not for too long, or another instance holds the Lease.
        """
        renewed_at = self._monotonic()
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with asyncio.timeout(RENEW_DEADLINE_SECONDS):
                    lease = await self._read()
                    if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                        await self._write(lease)
                        renewed_at = self._monotonic()
                        continue
                    raise LeadershipLostError("another instance holds the Lease")
            except (ApiError, TimeoutError) as error:
                if self._monotonic() - renewed_at > RENEW_DEADLINE_SECONDS:
                    raise LeadershipLostError(f"the Lease was not renewed in time: {error}") from error

    async def release(self) -> None:
        """Lets another instance take over at once."""
        lease = await self._read()
        if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
            spec = lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._api.replace(kubernetes_api.LEASES, {**lease, "spec": spec})

    async def _try_to_acquire(self) -> bool:
        lease = await self._read()
        if lease is None:
            await self._api.create(kubernetes_api.LEASES, self._manifest())
            return True
        holder = lease["spec"].get("holderIdentity")
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._monotonic())
        abandoned = self._monotonic() - self._seen[1] > lease["spec"].get("leaseDurationSeconds", DURATION_SECONDS)
        if holder and holder != self._identity and not abandoned:
            return False
        await self._write(lease)
        return True

    async def _read(self) -> ObjectDict | None:
        try:
            return await self._api.get(kubernetes_api.LEASES, self._namespace, LEASE_NAME)
        except NotFoundError:
            return None

    async def _write(self, lease: ObjectDict) -> None:
        """Writes our claim over the Lease as it was read; a conflict means that somebody else was faster."""
        await self._api.replace(kubernetes_api.LEASES, {**lease, "spec": lease["spec"] | self._manifest()["spec"]})

    def _manifest(self) -> ObjectDict:
        return {
            "apiVersion": kubernetes_api.LEASES.api_version,
            "kind": kubernetes_api.LEASES.kind,
            "metadata": {"name": LEASE_NAME, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION_SECONDS,
                "renewTime": times.text(self._now()),
            },
        }
