import json
from typing import Any

import pytest

from kedge import kubernetes_api
from kedge.kubernetes_api import ApiError, ConflictError, NamespaceTerminatingError, NotFoundError

TERMINATING = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        pytest.param(403, {"message": "forbidden"}, ApiError, id="not allowed"),
        pytest.param(403, {"message": "forbidden", "details": TERMINATING}, NamespaceTerminatingError, id="dying"),
        pytest.param(404, {"message": "not found", "details": {"name": "a"}}, NotFoundError, id="not there"),
        pytest.param(409, {"message": "changed"}, ConflictError, id="out of date"),
        pytest.param(500, [], ApiError, id="not a status"),
        pytest.param(502, "Bad Gateway", ApiError, id="not even an object"),
    ],
)
def test_an_answer_becomes_the_error_that_says_what_to_do(status: int, answer: Any, kind: type[ApiError]) -> None:
    error = kubernetes_api._error("GET", "/api/v1/pods", status, json.dumps(answer).encode())

    assert type(error) is kind
    assert f"GET /api/v1/pods: {status}" in str(error)
