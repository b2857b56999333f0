from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.model_server import support
from tests.model_server.support import iris_body

from kedge_server.feedback import Feedback, Outcome


async def send(server: support.Served, feedback: Any) -> Any:
    response = await server.client.post("/v2/models/m/feedback", json=feedback)
    assert response.status_code == 200, response.text
    return response.json()


async def test_labels_are_joined_with_predictions_by_id(iris: Any) -> None:
    async with support.served(iris) as server:
        for i in (0, 60):
            await server.infer(iris_body(start=i, id=f"request-{i}"))
        found = await send(
            server,
            [
                {"id": "request-0", "label": 0},
                {"id": "request-60", "label": 2},
                {"id": "request-0", "label": 0},
                {"id": "unknown", "label": 1},
            ],
        )
        assert found == {"correct": 1, "wrong": 1, "unmatched": 2}
        page = server.metrics.render(["kedge_server_feedback_total"]).decode()
        assert 'outcome="correct"} 1' in page
        assert 'outcome="unmatched"} 2' in page


async def test_a_request_of_several_rows_takes_a_label_a_row(iris: Any) -> None:
    async with support.served(iris) as server:
        await server.infer(iris_body(rows=3, id="a"))
        assert await send(server, {"id": "a", "labels": [0, 0, 1]}) == {"correct": 2, "wrong": 1, "unmatched": 0}
        await server.infer(iris_body(rows=3, id="b"))
        assert await send(server, {"id": "b", "labels": [0]}) == {"correct": 0, "wrong": 0, "unmatched": 1}


async def test_a_client_that_kept_its_prediction_needs_no_memory_here(churn: Any) -> None:
    async with support.served(churn) as server:
        found = await send(server, [{"prediction": "stay", "label": "stay"}, {"prediction": "stay", "label": "leave"}])
        assert found == {"correct": 1, "wrong": 1, "unmatched": 0}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ([], "1 to"),
        ([3], "item 0"),
        ({"id": "a"}, "label"),
        ({"label": 1}, "id or a prediction"),
        ({"id": 3, "label": 1}, "id"),
        ({"id": "a", "label": 1, "prediction": 1}, "either an id"),
        ({"id": "a", "label": {}}, "strings, numbers"),
        ({"id": "a", "labels": 3}, "labels"),
        ([{"prediction": 1, "label": 1}, {"id": "a"}], "item 1"),
    ],
)
async def test_malformed_feedback_is_refused_whole(iris: Any, body: Any, names: str) -> None:
    async with support.served(iris) as server:
        response = await server.client.post("/v2/models/m/feedback", json=body)
        assert response.status_code == 400
        assert names in response.json()["error"]
        assert set(server.plane.feedback.counts.values()) == {0}


async def test_feedback_is_posted(iris: Any) -> None:
    async with support.served(iris) as server:
        assert (await server.client.get("/v2/models/m/feedback")).status_code == 405


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    feedback = Feedback(max_rows=10)
    for i in range(100):
        feedback.remember(str(i), [("predict", np.zeros(3))])
    assert len(feedback._kept) == 3
    assert feedback._rows == 9
    feedback.remember("large", [("predict", np.zeros(11))])
    assert "large" not in feedback._kept
    for _ in range(5):
        feedback.remember("99", [("predict", np.ones(3))])
    assert feedback._rows == 9
    feedback.receive(b'{"id": "99", "labels": [1, 1.0, 0]}')
    assert feedback.counts == {Outcome.CORRECT: 2, Outcome.WRONG: 1, Outcome.UNMATCHED: 0}
    assert feedback._rows == 6


def test_a_predicted_number_may_miss_its_label_by_the_tolerance() -> None:
    feedback = Feedback(tolerance=0.5)
    feedback.receive(b'[{"prediction": 1.0, "label": 1.5}, {"prediction": 1.0, "label": 1.6}]')
    assert feedback.counts[Outcome.CORRECT] == feedback.counts[Outcome.WRONG] == 1
