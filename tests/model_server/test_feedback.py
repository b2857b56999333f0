from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from sklearn.linear_model import LinearRegression
from tests.model_server import support
from tests.model_server.support import iris_body

from kedge_server.feedback import Feedback, Outcome, Tolerance


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


async def test_more_labels_than_one_body_may_have_are_refused(iris: Any) -> None:
    async with support.served(iris) as server:
        for body in ({"id": "a", "labels": [0] * 10_001}, [{"id": "a", "labels": [0] * 6_000}] * 2):
            response = await server.client.post("/v2/models/m/feedback", json=body)
            assert response.status_code == 413
            assert "labels; at most 10000" in response.json()["error"]
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


@pytest.mark.parametrize(
    ("tolerance", "predicted", "label", "outcome"),
    [
        (Tolerance(), 1.5, 1.5, Outcome.CORRECT),
        (Tolerance(), 1.5, 1.5000001, Outcome.WRONG),
        (Tolerance(absolute=0.5), 1.0, 1.5, Outcome.CORRECT),
        (Tolerance(absolute=0.5), 2.0, 1.5, Outcome.CORRECT),
        (Tolerance(absolute=0.5), 1.0, 1.6, Outcome.WRONG),
        (Tolerance(percent=10), 90, 100, Outcome.CORRECT),
        (Tolerance(percent=10), -110, -100, Outcome.CORRECT),
        (Tolerance(percent=10), 89, 100, Outcome.WRONG),
        # Of the label, and not of what was predicted.
        (Tolerance(percent=10), 100, 90, Outcome.WRONG),
        (Tolerance(percent=10), 0.01, 0, Outcome.WRONG),
        (Tolerance(absolute=0.5, percent=10), 0.4, 0, Outcome.CORRECT),
        (Tolerance(absolute=0.5, percent=10), 91, 100, Outcome.CORRECT),
        (Tolerance(absolute=0.5, percent=10), "a", "b", Outcome.WRONG),
    ],
)
def test_a_predicted_number_may_miss_its_label_by_the_wider_tolerance(
    tolerance: Tolerance, predicted: Any, label: Any, outcome: Outcome
) -> None:
    feedback = Feedback(tolerance=tolerance)
    feedback.receive(orjson.dumps({"prediction": predicted, "label": label}))
    assert feedback.counts[outcome] == 1


def test_a_prediction_that_is_no_number_is_never_near() -> None:
    feedback = Feedback(tolerance=Tolerance(absolute=1e9))
    feedback.remember("a", [("predict", np.array([np.nan, np.inf]))])
    assert feedback.receive(b'{"id": "a", "labels": [0, 0]}')["wrong"] == 2


async def test_the_tolerance_is_for_regressors_and_classes_stay_exact(
    iris: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = support.IRIS[:, 0]
    for estimator, expected in ((LinearRegression().fit(support.IRIS, lengths), "correct"), (iris, "wrong")):
        async with support.served(estimator, feedback_tolerance=1.5) as server:
            await server.infer(iris_body(id="a"))
            near = {"id": "a", "label": float(lengths[0]) + 1 if expected == "correct" else 1}
            assert (await send(server, near))[expected] == 1
        assert ("no regressor" in caplog.text) == (expected == "wrong")
