"""Structured logs: one JSON object a line on standard error, bounded in rate and length.

Never logs a row, an answer, or a URL's credentials.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback

# A model that raises on every request must not fill the node's disk.
RECORDS_A_MINUTE = 120
_MAX_TEXT_CHARS = 4000

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonFormatter(logging.Formatter):
    """Renders a record with its `extra` fields as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without a line break inside or at the end."""
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_TEXT_CHARS],
        }
        fields.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info:
            trace = "".join(traceback.format_exception(*record.exc_info))
            fields["exception"] = trace[-_MAX_TEXT_CHARS:]
        return json.dumps(fields, default=str, ensure_ascii=False)


class RateLimit(logging.Filter):
    """Lets `per_minute` records through in each minute and says how many it swallowed."""

    def __init__(self, per_minute: int = RECORDS_A_MINUTE) -> None:
        super().__init__()
        self._per_minute = per_minute
        self._minute = -1
        self._passed = 0
        self._swallowed = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tells whether the record may be written."""
        minute = int(record.created // 60)
        if minute != self._minute:
            if self._swallowed:
                record.swallowed_records = self._swallowed
            self._minute, self._passed, self._swallowed = minute, 0, 0
        self._passed += 1
        if self._passed > self._per_minute:
            self._swallowed += 1
            return False
        return True


def configure(level: str = "info") -> None:
    """Sends every logger of the process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What Python warns of while a model is loaded and proved would be plain text otherwise.
    logging.captureWarnings(capture=True)
    # httpx logs every URL at INFO, and a signed URL is a credential.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # These tell at INFO where they found credentials, once for each file.
    for name in ("aiobotocore", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs each failed try with its traceback; what it means is told when the tries are over.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # What uvicorn says at INFO repeats what the life cycle already logs.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
