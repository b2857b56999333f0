"""The commands for people's levers, against an API server in memory."""

from typing import Any

import pytest
from kubernetes.aio.config import kube_config
from tests.operator.clusters import KEY_NAME, NAMESPACE, FakeApi
from tests.operator.worlds import World, in_step, revision_of, serving, spec

from kedge import cli
from kedge.api.levers import Levers
from kedge.kubernetes_api import MODEL_DEPLOYMENTS, ApiError, KubernetesApi, NotFoundError

ONE, TWO = revision_of("1"), revision_of("2")
APPROVAL = {"steps": [{"weightPercent": 25, "minimumSeconds": 10, "approval": "Required"}, {"weightPercent": 50}]}
GUARD = {"guard": {"durationSeconds": 600, "warmReplicas": 1}}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()

    async def connect(context: str | None) -> tuple[FakeApi, str]:
        return fake, "default" if context == "elsewhere" else NAMESPACE

    monkeypatch.setattr(KubernetesApi, "connect_as_user", connect)
    return fake


def store(api: FakeApi, world: World) -> None:
    annotations = {
        f"kedge.dev/{name}": getattr(world.levers, name)
        for name in ("approve", "abort", "retry")
        if getattr(world.levers, name)
    }
    metadata = {"name": KEY_NAME, "namespace": NAMESPACE, "annotations": annotations}
    api.put(MODEL_DEPLOYMENTS, {"metadata": metadata, "spec": world.spec.to_json(), "status": world.status.to_json()})


def levers(api: FakeApi) -> Levers:
    return Levers.read(api.objects[MODEL_DEPLOYMENTS, NAMESPACE, KEY_NAME]["metadata"])


def waiting() -> World:
    world = in_step(0, rollout=APPROVAL)
    world.run_until(lambda w: w.reason() == "WaitingForApproval", requests=400)
    return world


def too_young() -> World:
    world = in_step(0, rollout=APPROVAL)
    world.tick()
    return world


def rejected(**levers: str) -> World:
    world = in_step(0)
    world.pull(**levers)
    world.run_until(lambda w: w.status.rejected_revisions, requests=400, bad=0.5)
    return world


def guarding() -> World:
    world = serving(rollout=GUARD)
    world.declare(spec("2", rollout=GUARD))
    world.run_until(lambda w: w.status.rollout is not None and w.status.rollout.phase == "Guard", requests=400)
    return world


def test_approve_lets_the_step_pass_that_waits(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    world = waiting()
    store(api, world)

    assert cli.main(["approve", KEY_NAME]) == 0

    assert capsys.readouterr().out == f"prod/churn: approved step 1 of {TWO}\n"
    assert levers(api) == Levers(approve=f"{TWO}/1", approved_by="kedge-cli")
    world.levers = levers(api)
    world.run_until(lambda w: w.status.rollout.step == 1)


def test_approve_can_come_before_the_step_waits(api: FakeApi) -> None:
    store(api, in_step(0, rollout=APPROVAL))

    assert cli.main(["approve", KEY_NAME, "--step", "1", "--namespace", "prod", "--context", "elsewhere"]) == 0
    assert levers(api).approve == f"{TWO}/1"


def test_abort_takes_the_candidate_back(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    store(api, in_step(0))

    assert cli.main(["abort", KEY_NAME]) == 0

    assert capsys.readouterr().out == f"prod/churn: {TWO} is taken back; {ONE} serves\n"
    assert levers(api) == Levers(abort=TWO, aborted_by="kedge-cli")


def test_abort_goes_back_from_a_guarded_revision(api: FakeApi) -> None:
    store(api, guarding())

    assert cli.main(["abort", KEY_NAME]) == 0
    assert levers(api).abort == TWO


def test_each_retry_has_a_token_of_its_own_and_lifts_an_abort(api: FakeApi) -> None:
    world = in_step(0)
    world.pull(abort=TWO)
    world.tick()
    store(api, world)

    assert cli.main(["retry", KEY_NAME]) == 0
    first = levers(api)
    assert cli.main(["retry", KEY_NAME]) == 0

    assert first.retry
    assert first.abort == ""
    assert levers(api).retry != first.retry
    world.levers = first
    world.run_until(lambda w: w.status.candidate_revision == TWO)
    world.run_until(lambda w: w.status.stable_revision == TWO, requests=400)


@pytest.mark.parametrize(
    ("world", "command", "complaint"),
    [
        (serving, ["approve"], "nothing is being rolled out in churn"),
        (lambda: in_step(0), ["approve"], f"step 1 of {TWO} needs no approval"),
        (waiting, ["approve", "--step", "2"], "is at step 1, not at step 2"),
        (
            too_young,
            ["approve"],
            "does not wait for approval yet, but for WaitingForTime",
        ),
        (guarding, ["approve"], "nothing is being rolled out in churn"),
        (serving, ["abort"], "nothing is being rolled out or guarded in churn"),
        (World, ["abort"], "nothing is being rolled out or guarded in churn"),
        (serving, ["retry"], f"the declared revision {ONE} of churn was not rejected"),
        (lambda: in_step(0), ["retry"], f"the declared revision {TWO} of churn was not rejected"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    api: FakeApi, capsys: pytest.CaptureFixture[str], world: Any, command: list[str], complaint: str
) -> None:
    made = world()
    store(api, made)

    assert cli.main([*command, KEY_NAME]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("kedge: ")
    assert complaint in said.err
    assert levers(api) == made.levers


def test_the_first_revision_and_one_in_preflight_are_told_apart(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    first = World()
    first.tick()
    store(api, first)
    assert cli.main(["abort", KEY_NAME]) == 2
    assert "is the first revision of churn, so there is none to go back to" in capsys.readouterr().err
    assert cli.main(["approve", KEY_NAME]) == 2
    assert "is in phase Preflight: only a step can be approved" in capsys.readouterr().err


def test_a_lever_that_is_pulled_already_is_not_pulled_twice(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    world = waiting()
    world.pull(approve=f"{TWO}/1", abort=TWO)
    store(api, world)

    assert cli.main(["approve", KEY_NAME]) == 2
    assert "is approved already" in capsys.readouterr().err
    assert cli.main(["abort", KEY_NAME]) == 2
    assert "is being taken back already" in capsys.readouterr().err


def test_explain_asks_the_cluster(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    store(api, rejected())

    assert cli.main(["explain", KEY_NAME]) == 0
    assert f"try {TWO} once more: kedge retry churn -n prod" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["explain", "approve", "abort", "retry"])
def test_a_model_that_is_not_there_is_told_in_a_sentence(
    api: FakeApi, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, KEY_NAME]) == 2
    assert capsys.readouterr().err == "kedge: there is no ModelDeployment churn in namespace prod\n"


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (NotFoundError("GET /apis: 404 page not found"), "Kedge is not installed in it"),
        (ApiError("GET /apis: Cannot connect to host"), "Cannot connect to host"),
    ],
)
def test_a_cluster_that_cannot_answer_is_told_in_a_sentence(
    api: FakeApi, capsys: pytest.CaptureFixture[str], error: Exception, complaint: str
) -> None:
    async def fail(*_: Any) -> None:
        raise error

    api.get = fail  # type: ignore[assignment]

    assert cli.main(["abort", KEY_NAME]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "not: [yaml", "clusters: []"])
def test_without_a_kubeconfig_the_command_says_so(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))

    assert cli.main(["explain", KEY_NAME]) == 2
    assert "the kubeconfig cannot be used" in capsys.readouterr().err
