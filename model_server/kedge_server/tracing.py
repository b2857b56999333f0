"""Decides whether this process makes spans, by OpenTelemetry's own variables.

Without an endpoint nothing of OpenTelemetry is imported and no request passes through
any of it. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kedge_server.settings import Settings

if TYPE_CHECKING:
    from kedge_server.spans import Spans

_log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def wanted(environment: Mapping[str, str]) -> bool:
    """Tells whether spans are to be exported."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip() not in ("", "otlp"):
        return False
    return any(environment.get(name) for name in _ENDPOINTS)


def configure(settings: Settings, environment: Mapping[str, str]) -> Spans | None:
    """Returns what makes spans, or None when they are not wanted or cannot be had.

    A model is served without its traces rather than not at all, so what is wrong with
    the configuration is logged.
    """
    if not wanted(environment):
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        _log.error(
            "no traces are exported: this server speaks OTLP over http/protobuf only; "
            "set OTEL_EXPORTER_OTLP_PROTOCOL to that and the endpoint to the collector's HTTP port",
            extra={"protocol": protocol[:60]},
        )
        return None
    try:
        from kedge_server import spans  # noqa: PLC0415 - 0.4 s and 10 MB that most servers need not pay

        return spans.Spans(settings)
    except ImportError as exc:
        _log.error("no traces are exported: install kedge[tracing]", extra={"error": str(exc)})
    except Exception:  # noqa: BLE001 - whatever OpenTelemetry raises, the model can be served
        _log.exception("no traces are exported: OpenTelemetry's variables are wrong")
    return None
