"""The deliberate failures of this package, each a sentence that a person can act on."""

from __future__ import annotations


class LocalClusterError(Exception):
    """Something failed; the message says what and what to do about it."""


class UnsuitableMachineError(LocalClusterError):
    """This machine can neither pull a node image nor build one (exit status 2)."""


class CommandError(LocalClusterError):
    """A child process failed; the message carries its last lines of output."""
