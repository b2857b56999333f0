"""The `kedge` command."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from kedge.control.settings import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="kedge", description="Rolls model versions out and hauls the bad ones back.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="run the operator; its settings are the KEDGE_* environment variables")
    commands.add_parser("crd", help="print the CustomResourceDefinitions")
    chosen = parser.parse_args(arguments)
    return _run() if chosen.command == "run" else _crd()


def _run() -> int:
    # The first process of a container has no default reaction to signals: without this, a pod that is
    # deleted while it starts would stay until it is killed. Kopf takes signals over once it runs.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    from kedge.cli import running  # noqa: PLC0415 - `kedge crd` needs nothing of the operator

    try:
        return running.run(os.environ)
    except SettingsError as error:
        print(f"kedge: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _crd() -> int:
    import yaml  # noqa: PLC0415

    from kedge.api import crd  # noqa: PLC0415

    yaml.safe_dump_all(crd.custom_resource_definitions(), sys.stdout, sort_keys=False)
    return 0
