"""`kedge run`: the operator as a process."""

import asyncio
import logging
from collections.abc import Mapping

import uvloop
from pythonjsonlogger.json import JsonFormatter

from kedge.control import runtime, settings
from kedge.control.leadership import LeadershipLostError

logger = logging.getLogger(__name__)

LEADERSHIP_LOST = 3
"""Exit code after which the pod is started anew, as a follower."""


def run(environment: Mapping[str, str]) -> int:
    """Runs the operator until it is told to stop; returns its exit code.

    Raises:
        SettingsError: A setting makes no sense.
    """
    chosen = settings.from_environment(environment)
    _configure_logging(chosen)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(runtime.run(chosen))
    except LeadershipLostError as lost:
        logger.error("%s", lost)  # noqa: TRY400 - the message says it all
        return LEADERSHIP_LOST
    return 0


def _configure_logging(chosen: settings.Settings) -> None:
    handler = logging.StreamHandler()
    if chosen.log_format == "Json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=chosen.log_level, handlers=[handler], force=True)
    # Kopf tells of each event that it hands on; that is for its own debugging.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # httpx tells of each request: several a second for each pod that is judged.
    logging.getLogger("httpx").setLevel(logging.WARNING)
