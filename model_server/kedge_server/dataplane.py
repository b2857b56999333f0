"""What the server does, whichever protocol asks: one model, ready or not, predicting.

The REST application and the gRPC service translate; nothing here knows of either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import kedge_server
from kedge_server import batching, feedback, loading, metrics, predicting, protocol
from kedge_server.errors import ClientError, Fault, OverloadedError, RequestError
from kedge_server.settings import Settings
from kedge_server.signature import Kind, Layout, Signature

PLATFORM = "scikit-learn_skops"

# Reads a request against what the model takes.
Decode = Callable[[Signature], protocol.InferRequest]


class Dataplane:
    """The model of one process and the way to its predictions.

    Args:
        settings: Names and limits.
        registry: Counts infer requests.
    """

    def __init__(self, settings: Settings, registry: metrics.Metrics) -> None:
        self.settings = settings
        self.metrics = registry
        self.feedback = feedback.Feedback()
        registry.feedback_counts = self.feedback.counts
        # Set for good when a signal comes; everybody then says that this server is going.
        self.draining = False
        self._model: loading.LoadedModel | None = None
        self._batcher: batching.Batcher | None = None

    @property
    def ready(self) -> bool:
        """Tells whether new requests should be sent here."""
        return self._batcher is not None and not self.draining

    def serve(self, model: loading.LoadedModel, batcher: batching.Batcher) -> None:
        """Becomes ready to predict with `model`."""
        declared = feedback.Tolerance(self.settings.feedback_tolerance, self.settings.feedback_tolerance_percent)
        self.feedback.tolerance = feedback.tolerance_for(model.estimator, declared)
        self._model, self._batcher = model, batcher

    def submit(self, decode: Decode, size: int, done: batching.Done) -> batching.Job:
        """Takes one infer request of `size` bytes; `done` is told its outcome.

        Raises:
            RequestError: It is refused.
        """
        model, batcher = self._model, self._batcher
        if model is None or batcher is None:
            raise OverloadedError("the model is still being loaded")
        batcher.check_room(1, size)
        request = decode(model.signature)
        limit = self.settings.limits.max_queue_rows
        if request.rows.count > limit:
            raise ClientError(f"{request.rows.count} rows, but this server takes at most {limit} in one request", 413)
        return batcher.submit(request, done, size)

    def remember(self, request: protocol.InferRequest, outputs: list[protocol.Output]) -> None:
        """Keeps what is being answered for labels that may come."""
        if request.id:
            self.feedback.remember(request.id, outputs)

    async def predict(self, decode: Decode, size: int) -> tuple[protocol.InferRequest, predicting.Outcome]:
        """Returns one infer request, which came in `size` bytes, and its outcome.

        An outcome that is an error is not raised: it would hold the frames that it passed, and these would hold it
        and the request, for megabytes until the garbage collector looks for cycles.

        Raises:
            RequestError: It is refused.
        """
        future: asyncio.Future[tuple[protocol.InferRequest, predicting.Outcome]]
        future = asyncio.get_running_loop().create_future()
        job = self.submit(decode, size, lambda request, outcome: future.set_result((request, outcome)))
        try:
            request, outcome = await future
        except asyncio.CancelledError:
            job.cancel()
            raise
        if not isinstance(outcome, RequestError):
            self.remember(request, outcome)
        return request, outcome

    def count(self, fault: Fault, seconds: float) -> None:
        """Counts an infer request that has been answered."""
        self.metrics.answered(fault, seconds)

    def check_names(self, model: str, version: str | None) -> None:
        """Refuses the name of another model or version.

        Raises:
            ClientError: With status 404.
        """
        ours = self.settings
        if model != ours.model_name:
            raise ClientError(f'model "{model[:60]}" is not served here; "{ours.model_name}" is', 404)
        if version and version != ours.model_version:
            raise ClientError(f'version "{version[:60]}" is not served here; "{ours.model_version}" is', 404)

    def server_metadata(self) -> dict[str, Any]:
        """Returns the server's metadata."""
        return {"name": "kedge-server", "version": kedge_server.__version__, "extensions": protocol.EXTENSIONS}

    def model_metadata(self) -> dict[str, Any]:
        """Returns the model's metadata.

        Raises:
            OverloadedError: It is not loaded yet.
        """
        if self._model is None:
            raise OverloadedError("the model is still being loaded")
        signature = self._model.signature
        return {
            "name": self.settings.model_name,
            "versions": [self.settings.model_version],
            "platform": PLATFORM,
            "inputs": _inputs(signature),
            "outputs": [{"name": o.name, "datatype": o.datatype, "shape": [-1, *o.shape]} for o in signature.outputs],
        }


def _inputs(signature: Signature) -> list[dict[str, Any]]:
    if signature.layout is Layout.TEXT:
        return [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    if signature.width is None or not (signature.named or not signature.numeric):
        return [{"name": "input", "datatype": "FP64", "shape": [-1, signature.width or -1]}]
    return [
        {
            "name": column.name,
            "datatype": column.datatype or ("BYTES" if column.kind is Kind.STRING else "FP64"),
            "shape": [-1],
        }
        for column in signature.columns
    ]
