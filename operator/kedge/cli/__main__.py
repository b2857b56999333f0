"""Lets `python -m kedge.cli` do what `kedge` does."""

import sys

from kedge import cli

sys.exit(cli.main())
