from aiohttp.test_utils import TestClient, TestServer

from kedge.control import probes
from kedge.control.metrics import Metrics
from kedge.control.probes import Health


async def answers(health: Health) -> dict[str, int]:
    async with TestClient(TestServer(probes.application(health, Metrics()))) as client:
        return {path: (await client.get(path)).status for path in ("/healthz", "/readyz", "/metrics")}


async def test_an_operator_is_ready_once_it_has_seen_the_whole_cluster() -> None:
    health = Health()
    assert (await answers(health))["/readyz"] == 503
    health.synced = True
    assert await answers(health) == {"/healthz": 200, "/readyz": 200, "/metrics": 200}


async def test_what_was_not_heard_of_in_time_fails_the_liveness_probe() -> None:
    now = 0.0
    health = Health(monotonic=lambda: now)
    health.beat("event loop", within=10)
    now = 11.0
    assert health.silent() == ["event loop"]
    assert (await answers(health))["/healthz"] == 503
    health.beat("event loop", within=10)
    assert (await answers(health))["/healthz"] == 200


async def test_the_operators_own_metrics_are_served() -> None:
    metrics = Metrics()
    metrics.transitions.labels(reason="Promoted").inc()
    async with TestClient(TestServer(probes.application(Health(), metrics))) as client:
        page = await (await client.get("/metrics")).text()
    assert 'kedge_transitions_total{reason="Promoted"} 1.0' in page
