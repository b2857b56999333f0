"""RFC 3339 times in status, to the microsecond, from and to seconds since the epoch."""

import datetime as dt


def text(seconds: float) -> str:
    """Returns an RFC 3339 time in UTC with microseconds."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_the_second(seconds: float) -> str:
    """Returns an RFC 3339 time in UTC without fractions, as conditions have it."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """Returns seconds since the epoch."""
    return dt.datetime.fromisoformat(text).timestamp()
