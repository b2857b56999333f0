"""The operator's own settings, from environment variables that the chart sets."""

import dataclasses
from collections.abc import Mapping


class SettingsError(Exception):
    """A setting is missing or makes no sense."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What the administrator decides."""

    model_server_image: str
    """Image of the model server where a ModelDeployment names none."""
    namespace: str = "default"
    """Where the operator itself runs: the namespace of its Lease."""
    identity: str = "kedge"
    """Name of this instance, unique among the replicas."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces that are served; all when empty."""
    log_level: str = "INFO"
    log_format: str = "Json"
    port: int = 8080
    """Port of the probes and of the operator's own metrics."""


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Reads the settings.

    Raises:
        SettingsError: A variable is missing or has a value that makes no sense; the message names it.
    """
    try:
        image = environment["KEDGE_MODEL_SERVER_IMAGE"]
    except KeyError:
        raise SettingsError("set KEDGE_MODEL_SERVER_IMAGE to the image of the model server") from None
    level = environment.get("KEDGE_LOG_LEVEL", "INFO").upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise SettingsError(f"KEDGE_LOG_LEVEL is {level}: it must be DEBUG, INFO, WARNING or ERROR")
    log_format = environment.get("KEDGE_LOG_FORMAT", "Json")
    if log_format not in {"Json", "Plain"}:
        raise SettingsError(f"KEDGE_LOG_FORMAT is {log_format}: it must be Json or Plain")
    port = environment.get("KEDGE_PORT", "8080")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"KEDGE_PORT is {port}: it must be a port number")
    namespaces = (name.strip() for name in environment.get("KEDGE_WATCH_NAMESPACES", "").split(","))
    return Settings(
        model_server_image=image,
        namespace=environment.get("KEDGE_NAMESPACE", "default"),
        identity=environment.get("KEDGE_POD_NAME", "kedge"),
        watch_namespaces=tuple(name for name in namespaces if name),
        log_level=level,
        log_format=log_format,
        port=int(port),
    )
