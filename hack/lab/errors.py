"""What goes wrong in the lab, each a sentence that a person can act on."""


class LabError(Exception):
    """Something could not be done; the message says what."""


class NotInTimeError(LabError):
    """What was waited for did not come true; the message says what was seen instead."""
