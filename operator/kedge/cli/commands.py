"""What the commands for people do: read, ask the cluster where that is needed, print."""

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pydantic

from kedge import kubernetes_api
from kedge.api import records, schemas
from kedge.cli import explaining, inputs, levers, replays
from kedge.cli.errors import CommandError
from kedge.cli.levers import Model, Pull
from kedge.decide import times
from kedge.kubernetes_api import MODEL_DEPLOYMENTS, KubernetesApi, ObjectDict


def run(chosen: argparse.Namespace) -> int:
    """Runs a command and returns its exit code.

    Raises:
        CommandError: It cannot do what it was asked.
    """
    if chosen.command == "replay":
        code, text = replays.run(chosen.file, verbose=chosen.verbose, as_json=chosen.output == "json")
    elif chosen.command == "explain" and chosen.file is not None:
        code, text = 0, _explained(chosen.file, chosen.name)
    elif chosen.name is None:
        raise CommandError("name a ModelDeployment, or a file by --file")
    else:
        code, text = 0, asyncio.run(_ask(chosen))
    print(text)  # noqa: T201
    return code


def _explained(path: str, name: str | None) -> str:
    """Returns what the objects in a file say."""
    told = []
    for item in inputs.objects(path):
        if name is not None and (item.get("metadata") or {}).get("name") != name:
            continue
        if item.get("kind") == records.KIND:
            told.append(explaining.record(*inputs.record(path, item)))
        elif (item.get("apiVersion"), item.get("kind")) == (schemas.API_VERSION, schemas.KIND):
            told.append(explaining.model(_model(item), item["metadata"].get("namespace")))
        else:
            raise CommandError(f"{path} holds {item.get('kind')}, and neither a ModelDeployment nor a RolloutRecord")
    if not told:
        raise CommandError(f"{path} holds nothing that is named {name}")
    return "\n\n".join(told)


async def _ask(chosen: argparse.Namespace) -> str:
    try:
        async with _connected(chosen.context) as (api, default):
            return await _answered(api, chosen, chosen.namespace or default)
    except kubernetes_api.ApiError as error:
        raise CommandError(str(error)) from error


async def _answered(api: KubernetesApi, chosen: argparse.Namespace, namespace: str) -> str:
    model = _model(await _found(api, namespace, chosen.name))
    match chosen.command:
        case "explain":
            return explaining.model(model, namespace)
        case "approve":
            pull = levers.approve(model, chosen.step)
        case "abort":
            pull = levers.abort(model)
        case _:
            pull = levers.retry(model, times.text(time.time()))
    await _pulled(api, namespace, chosen.name, pull)
    return f"{namespace}/{chosen.name}: {pull.said}"


async def _found(api: KubernetesApi, namespace: str, name: str) -> ObjectDict:
    try:
        return await api.get(MODEL_DEPLOYMENTS, namespace, name)
    except kubernetes_api.NotFoundError as error:
        if f'"{name}" not found' in str(error):
            raise CommandError(f"there is no ModelDeployment {name} in namespace {namespace}") from error
        raise CommandError("this cluster knows no ModelDeployments: Kedge is not installed in it") from error


async def _pulled(api: KubernetesApi, namespace: str, name: str, pull: Pull) -> None:
    await api.annotate(MODEL_DEPLOYMENTS, namespace, name, pull.annotations, manager=levers.FIELD_MANAGER)


def _model(item: ObjectDict) -> Model:
    try:
        return Model.read(item)
    except (pydantic.ValidationError, KeyError) as error:
        raise CommandError(f"the ModelDeployment is not one that this Kedge understands: {error}") from error


@contextlib.asynccontextmanager
async def _connected(context: str | None) -> AsyncIterator[tuple[KubernetesApi, str]]:
    api, namespace = await KubernetesApi.connect_as_user(context)
    try:
        yield api, namespace
    finally:
        await api.close()
