"""The `kedge` command, also `kubectl kedge`."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from kedge.control.settings import SettingsError

UNUSABLE = 2
"""Exit code when a command cannot do what it was asked, and has said why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    chosen = _parser().parse_args(arguments)
    match chosen.command:
        case "run":
            return _run()
        case "crd":
            return _crd()
        case _:
            return _for_people(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kedge", description="Rolls model versions out and hauls the bad ones back.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="run the operator; its settings are the KEDGE_* environment variables")
    commands.add_parser("crd", help="print the CustomResourceDefinitions")
    replay = commands.add_parser("replay", help="derive recorded rollouts again, and say where the records differ")
    replay.add_argument("file", metavar="FILE", help="RolloutRecords as YAML or JSON, or - for standard input")
    replay.add_argument("--verbose", action="store_true", help="print a line for each decision")
    replay.add_argument("--output", choices=["text", "json"], default="text", help="for people or for programs")
    explain = commands.add_parser("explain", help="tell what serves, what is rolled out, what it waits for and why")
    explain.add_argument("name", metavar="NAME", nargs="?", help="the ModelDeployment")
    explain.add_argument("-f", "--file", help="a ModelDeployment or RolloutRecord as YAML or JSON, or -; no cluster")
    approve = commands.add_parser("approve", help="let the step pass that waits for a person")
    approve.add_argument("--step", type=int, help="number of the present step, to approve it before it waits")
    abort = commands.add_parser("abort", help="take back the revision that is rolled out or guarded")
    retry = commands.add_parser("retry", help="try the declared revision again that was rejected")
    for lever in (approve, abort, retry):
        lever.add_argument("name", metavar="NAME", help="the ModelDeployment")
    for command in (explain, approve, abort, retry):
        command.add_argument("-n", "--namespace", help="instead of the one of the kubeconfig's context")
        command.add_argument("--context", help="of the kubeconfig, instead of the current one")
    return parser


def _run() -> int:
    # The first process of a container has no default reaction to signals: without this, a pod that is
    # deleted while it starts would stay until it is killed. Kopf takes signals over once it runs.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    from kedge.cli import running  # noqa: PLC0415 - `kedge crd` needs nothing of the operator

    try:
        return running.run(os.environ)
    except SettingsError as error:
        print(f"kedge: {error}", file=sys.stderr)  # noqa: T201
        return UNUSABLE


def _crd() -> int:
    import yaml  # noqa: PLC0415

    from kedge.api import crd  # noqa: PLC0415

    yaml.safe_dump_all(crd.custom_resource_definitions(), sys.stdout, sort_keys=False)
    return 0


def _for_people(chosen: argparse.Namespace) -> int:
    from kedge.cli import commands, errors  # noqa: PLC0415

    try:
        return commands.run(chosen)
    except errors.CommandError as error:
        print(f"kedge: {error}", file=sys.stderr)  # noqa: T201
        return UNUSABLE
    except BrokenPipeError:
        # Whoever read the output has seen enough. Nothing is left that could be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
