"""Runs the command as `python -m kedge_server`."""

import sys

from kedge_server import cli

sys.exit(cli.main())
