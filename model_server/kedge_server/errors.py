"""What a request can end in, other than an answer.

```
RequestError          status and fault in one place
├── ClientError       4xx, fault client
├── OverloadedError        503 with Retry-After, fault overload
├── ModelError        500, fault server: the model raised
└── ExpiredError           504, fault server: the prediction outlasted the request
```
"""

from __future__ import annotations

import enum
from typing import Any

# Of a client's text in a message, which stays readable whatever it is.
_MAX_QUOTE_CHARS = 60


class Fault(enum.Enum):
    """Whose doing the outcome of a request is; a label of `kedge_server_requests_total`."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"
    OVERLOAD = "overload"


class RequestError(Exception):
    """Ends a request with an HTTP status and `{"error": message}`."""

    status = 500
    fault = Fault.SERVER

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that the answer carries besides the usual ones."""
        return []


class ClientError(RequestError):
    """The request is at fault; the message names the field.

    Args:
        message: For the person who wrote the client.
        status: A 4xx status.
    """

    fault = Fault.CLIENT

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class MethodNotAllowedError(ClientError):
    """The path exists, for another method."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this path answers to {allowed} only", 405)
        self._allowed = allowed

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names the methods that work (RFC 9110, section 15.5.6)."""
        return [(b"allow", self._allowed.encode())]


class OverloadedError(RequestError):
    """There is no room now; the request was not tried.

    Args:
        message: What is full.
        retry_after_seconds: When it is likely to have room again.
    """

    status = 503
    fault = Fault.OVERLOAD

    def __init__(self, message: str, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Carries Retry-After in whole seconds (RFC 9110, section 10.2.3)."""
        return [(b"retry-after", str(self.retry_after_seconds).encode())]


class ModelError(RequestError):
    """The model raised on rows that its signature admits."""


class ExpiredError(RequestError):
    """The prediction was still running when the request's time was up."""

    status = 504


def quoted(text: Any) -> str:
    """Returns what a client sent as it stands in a message about it."""
    shown = text if isinstance(text, str) else repr(text)
    if len(shown) > _MAX_QUOTE_CHARS:
        shown = shown[:_MAX_QUOTE_CHARS] + "..."
    return f'"{shown}"'
