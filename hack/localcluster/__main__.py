"""Refuses a Python that is too old before any module that needs a newer one is imported."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this is the check that gives the remedy
    sys.exit(
        "Python 3.11 or newer is missing (this is {}.{}): run this with a newer python3.".format(*sys.version_info[:2])
    )

from hack.localcluster import cli

if __name__ == "__main__":
    sys.exit(cli.main())
