"""Why a command cannot do what it was asked."""


class CommandError(Exception):
    """The command cannot do this; the message says why, and what would help."""
