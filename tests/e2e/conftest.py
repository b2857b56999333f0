"""What every end-to-end test has at hand: kubectl, Kedge installed, models, and a namespace of its own."""

import json
import os
import pathlib
import secrets
import subprocess
from collections.abc import Callable, Generator, Iterator

import pytest
from examples.digits import train
from hack.lab import installing
from hack.lab.kubectl import Kubectl as LabKubectl
from hack.lab.store import Store
from hack.lab.traffic import Report
from tests.e2e.models import Models
from tests.e2e.worlds import World

Kubectl = Callable[..., subprocess.CompletedProcess[str]]

OPERATOR_LOG_LINES = 60
FIGURES = pytest.StashKey[list[str]]()
"""What tests measured, to be shown at the end."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the cluster looked like to the report of a failed test, while it still looks like that."""
    report = yield
    if report.failed and report.when in {"setup", "call"}:
        world = getattr(item, "funcargs", {}).get("world")
        if isinstance(world, World):
            report.sections.append(("namespace", world.diagnostics()))
            log = installing.operator().attempt(
                "logs", installing.DEPLOYMENT, f"--tail={OPERATOR_LOG_LINES}", "--all-pods=true"
            )
            report.sections.append(("operator", log.stdout + log.stderr))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Shows what users met, whether the tests passed or not."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("what users met")
        for figure in figures:
            terminalreporter.write_line(figure)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[Report, str], None]:
    """Keeps the figures of a rollback for the end of the session."""

    def keep(counted: Report, revision: str) -> None:
        span = counted.span_of(revision)
        seconds = f"{span[1] - span[0]:.2f} s from the candidate's first answer to its last; " if span else ""
        causes = ", ".join(f"{count} x {cause}" for cause, count in counted.causes.items())
        figure = f"{request.node.name}: {seconds}{counted.lost} of {counted.sent} requests lost ({causes})"
        request.config.stash.setdefault(FIGURES, []).append(figure)

    return keep


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """Runs `kubectl` with these arguments and returns what it said, also when it failed."""
    if not pathlib.Path(os.environ.get("KUBECONFIG", "")).is_file():
        pytest.fail("KUBECONFIG names no file: run these tests with `python3 -m hack.localcluster exec -- pytest`")

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture(scope="session", autouse=True)
def kedge(kubectl: Kubectl) -> None:
    """Installs the chart with the images that were built from this work tree."""
    installing.install()


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a file of rows that no model has seen in training."""
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps(train.live_rows()))
    return path


@pytest.fixture(scope="session")
def models(kubectl: Kubectl, kedge: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Opens a model store for all tests."""
    with_namespace = f"models-{secrets.token_hex(3)}"
    kubectl("create", "namespace", with_namespace)
    store = Store(LabKubectl(with_namespace))
    store.open()
    yield Models(store, tmp_path_factory.mktemp("models"))
    kubectl("delete", "namespace", with_namespace, "--wait=false")


@pytest.fixture
def world(kubectl: Kubectl, models: Models, rows: pathlib.Path) -> Iterator[World]:
    """Makes a namespace for one test, with its journal running, and removes it afterwards."""
    name = f"world-{secrets.token_hex(3)}"
    assert kubectl("create", "namespace", name).returncode == 0
    made = World(name, models, rows)
    made.journal.start()
    yield made
    made.close()
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[str]:
    """Makes a namespace for one test module and removes it afterwards."""
    stem = request.path.stem.removeprefix("test_").replace("_", "-")
    name = f"{stem}-{secrets.token_hex(3)}"
    created = kubectl("create", "namespace", name)
    assert created.returncode == 0, created.stderr
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
