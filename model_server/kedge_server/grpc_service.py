"""The Open Inference Protocol V2 over gRPC. Translates only; the dataplane does the work.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import message  # type: ignore[import-untyped]
from open_inference.grpc import protocol as messages

from kedge_server import dataplane, decoding, encoding, protocol, sockets
from kedge_server.errors import ClientError, Fault, OverloadedError, RequestError
from kedge_server.settings import Settings
from kedge_server.signature import Signature

_log = logging.getLogger(__name__)

# Where the protocol's message keeps each datatype's values. FP16 has no place of its
# own, so it comes as raw bytes only.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_STATUSES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_SERVICE = "inference.GRPCInferenceService"
# gRPC refuses by itself, uncounted, what is larger than this many times the limit.
_RECEIVE_FACTOR = 4
# A connection's client is told in good time to open another one, and a drain waits for that.
_MAX_CONNECTION_AGE_SECONDS = 10.0
# gRPC spreads the age by 10 % by itself.
_LONGEST_AGE = 1.1
_POLL_SECONDS = 0.02


class _Service:
    """One method a call of the protocol."""

    def __init__(self, plane: dataplane.Dataplane) -> None:
        self._plane = plane
        self._who = ((protocol.VERSION_HEADER, plane.settings.model_version),)

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return messages.ServerReadyResponse(ready=self._plane.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._names(request.name, request.version, context)
        return messages.ModelReadyResponse(ready=self._plane.ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return messages.ServerMetadataResponse(**self._plane.server_metadata())

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._names(request.name, request.version, context)
        try:
            return messages.ModelMetadataResponse(**self._plane.model_metadata())
        except RequestError as exc:
            await self._abort(context, exc)

    async def ModelInfer(self, request: bytes, context: Any) -> Any:  # noqa: N802
        """Answers a call. It comes as bytes, so that a message that cannot be read is counted too."""
        # gRPC cancels a call whose client went away or ran out of time. Such a call is predicted
        # and counted all the same, or the slowest answers would be missing from what is counted.
        answer = await asyncio.shield(asyncio.ensure_future(self._infer(request, time.monotonic())))
        if isinstance(answer, RequestError):
            await self._abort(context, answer)
        context.set_trailing_metadata(self._who)
        return answer

    async def _infer(self, raw: bytes, arrived: float) -> Any:
        """Returns the message for the client, or the error that it is to be told, and counts either."""
        fault = Fault.NONE
        try:
            request = self._parsed(raw)
            self._plane.check_names(request.model_name, request.model_version)
            decoded, outcome = await self._plane.predict(lambda signature: _decode(request, signature), len(raw))
            if isinstance(outcome, RequestError):
                fault = outcome.fault
                return outcome
            return self._response(request, decoded, outcome)
        except RequestError as exc:
            fault = exc.fault
            return exc
        except Exception:  # noqa: BLE001 - a bug of ours must be counted and answered too
            _log.exception("a request failed in the server's own code")
            fault = Fault.SERVER
            return RequestError("the server failed; its log says how")
        finally:
            self._plane.count(fault, time.monotonic() - arrived)

    def _parsed(self, raw: bytes) -> Any:
        limit = self._plane.settings.limits.max_body_bytes
        if len(raw) > limit:
            raise ClientError(f"the message has {len(raw)} bytes; at most {limit} are taken", 413)
        try:
            return messages.ModelInferRequest.FromString(raw)
        except message.DecodeError as exc:
            raise ClientError("the message is not a ModelInferRequest") from exc

    def _response(self, request: Any, decoded: protocol.InferRequest, outputs: list[protocol.Output]) -> Any:
        settings = self._plane.settings
        response = messages.ModelInferResponse(
            model_name=settings.model_name, model_version=settings.model_version, id=decoded.id or ""
        )
        datatypes = [protocol.datatype_of(array) for _, array in outputs]
        # All in one place: clients that find raw contents look nowhere else.
        raw = len(request.raw_input_contents) > 0 or "FP16" in datatypes
        for (name, array), datatype in zip(outputs, datatypes, strict=True):
            tensor = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            if raw:
                response.raw_output_contents.append(encoding.binary(array))
            else:
                getattr(tensor.contents, _CONTENTS[datatype]).extend(_values(array, datatype))
        return response

    async def _names(self, name: str, version: str, context: Any) -> None:
        try:
            self._plane.check_names(name, version)
        except ClientError as exc:
            await self._abort(context, exc)

    async def _abort(self, context: Any, exc: RequestError) -> None:
        trailing: tuple[tuple[str, str], ...] = self._who
        if isinstance(exc, OverloadedError):
            trailing = (*trailing, ("retry-after", str(exc.retry_after_seconds)))
        await context.abort(_STATUSES.get(exc.status, grpc.StatusCode.INTERNAL), exc.message, trailing)


def _values(array: protocol.Array, datatype: str) -> Any:
    flat = array.reshape(-1)
    return [str(v).encode() for v in flat.tolist()] if datatype == "BYTES" else flat.tolist()


def _decode(request: Any, signature: Signature) -> protocol.InferRequest:
    """Reads a message as the document that the same request would be in JSON."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise ClientError(f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs")
    inputs: list[dict[str, Any]] = []
    for position, tensor in enumerate(request.inputs):
        data = memoryview(raw[position]) if raw else _contents(tensor, position)
        if raw and tensor.HasField("contents"):
            raise ClientError(f"inputs[{position}] has both contents and raw_input_contents")
        inputs.append({"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": data})
    document: dict[str, Any] = {
        "id": request.id or None,
        "inputs": inputs,
        "outputs": [{"name": output.name} for output in request.outputs],
    }
    if "method" in request.parameters:
        parameter = request.parameters["method"]
        # Of whatever type it is: the decoder knows which methods there are.
        chosen = parameter.WhichOneof("parameter_choice")
        document["parameters"] = {"method": getattr(parameter, chosen) if chosen else None}
    return decoding.infer_document(document, signature)


def _contents(tensor: Any, position: int) -> list[Any]:
    if tensor.datatype not in protocol.DATATYPES:
        # The decoder says what is wrong with it.
        return []
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise ClientError(f"inputs[{position}]: {tensor.datatype} is taken in raw_input_contents only")
    for filled, _ in tensor.contents.ListFields():
        if filled.name != field:
            raise ClientError(
                f"inputs[{position}].contents.{filled.name} is filled, but {tensor.datatype} belongs into"
                f" contents.{field}"
            )
    values = list(getattr(tensor.contents, field))
    if tensor.datatype != "BYTES":
        return values
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as exc:
        raise ClientError(f"inputs[{position}].contents.bytes_contents is not UTF-8") from exc


def _handlers(servicer: _Service) -> dict[str, Any]:
    """Returns what answers each method; all take bytes, since gRPC says of a message it cannot read nothing of use."""
    methods = {"ModelInfer": servicer.ModelInfer}
    for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"):
        methods[name] = _reading(getattr(messages, f"{name}Request"), getattr(servicer, name))
    return {
        name: grpc.unary_unary_rpc_method_handler(
            method, response_serializer=getattr(messages, f"{name}Response").SerializeToString
        )
        for name, method in methods.items()
    }


def _reading(kind: Any, method: Any) -> Any:
    async def answer(raw: bytes, context: Any) -> Any:
        try:
            request = kind.FromString(raw)
        except message.DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is not a {kind.DESCRIPTOR.name}")
        return await method(request, context)

    return answer


class Server:
    """The gRPC server of one process.

    Args:
        plane: Does what the calls ask for.
        settings: Port and limits.
        interceptors: Around each call, the first outermost.

    Raises:
        OSError: The port cannot be had.
    """

    def __init__(self, plane: dataplane.Dataplane, settings: Settings, interceptors: Sequence[Any] = ()) -> None:
        self._call_seconds = settings.limits.request_timeout_seconds
        self._age_seconds = min(settings.max_connection_age_seconds, _MAX_CONNECTION_AGE_SECONDS)
        self._server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_receive_message_length", _RECEIVE_FACTOR * settings.limits.max_body_bytes),
                ("grpc.max_connection_age_ms", int(self._age_seconds * 1000)),
                # For the calls that a connection still carries.
                ("grpc.max_connection_age_grace_ms", int(self._call_seconds * 1000)),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, _handlers(_Service(plane))),)
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            self.port: int = self._server.add_insecure_port(f"{host}:{settings.grpc_port}")
        except RuntimeError as exc:
            raise OSError(f"gRPC cannot listen on {host}:{settings.grpc_port}: {exc}") from exc

    async def start(self) -> None:
        """Begins to take calls."""
        await self._server.start()

    async def drain(self) -> None:
        """Takes no new connections, lets those that there are end, and then stops.

        gRPC cancels calls that come in while it is stopping, and it has no way to tell clients of that beforehand
        but the age of their connections.
        """
        listener = sockets.listening(self.port)
        if listener is not None:
            with listener:
                sockets.refuse_new_connections(listener)
                await asyncio.sleep(sockets.HANDSHAKE_SECONDS)
        deadline = time.monotonic() + _LONGEST_AGE * self._age_seconds + self._call_seconds
        while sockets.connected(self.port) and time.monotonic() < deadline:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(_POLL_SECONDS)
        await self._server.stop(self._call_seconds)

    async def stop(self) -> None:
        """Stops at once."""
        await self._server.stop(None)
