"""What a server can be told, with units, defaults and the reasons for them."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds that keep memory and waiting finite whatever clients send."""

    # The event loop reads bodies, so this also bounds how long one request can hold up a probe: 1 MiB of numbers takes
    # some 10 ms, one of nulls or of empty objects five times that.
    max_body_bytes: int = 8 * MIB
    # A forest of 100 trees takes 2.4 ms for one row, 13 for 1,600 and 23 for 6,400, so large batches pay.
    # Models that take longer are bounded by time; this bounds the memory of a batch.
    max_batch_rows: int = 8192
    # Rows that may wait. At 64 features of 8 bytes this is 4 MiB.
    max_queue_rows: int = 8192
    # And their requests' bytes, of which rows of text may have many; objects take several times as much memory.
    max_queue_bytes: int = 64 * MIB
    # After this a request is answered 503 (still waiting) or 504 (being predicted).
    request_timeout_seconds: float = 30.0
    # A client gets this long to send its whole request, so that slow senders cannot pile up.
    receive_timeout_seconds: float = 20.0
    max_header_bytes: int = 64 * 1024
    # Half of the usual limit of 1024 descriptors of a process would be in use.
    max_connections: int = 4096


class Compile(enum.Enum):
    """Whether the model may be answered by a compiled form of it."""

    OFF = "Off"
    AUTO = "Auto"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How one process serves one model."""

    model_name: str
    model_path: Path
    model_version: str = "1"
    sha256: str | None = None
    trusted_types: tuple[str, ...] = ()
    # A model may answer otherwise with another scikit-learn, so this is for those who know.
    allow_version_skew: bool = False
    host: str = "0.0.0.0"  # noqa: S104 - a pod's port is reached from other hosts
    port: int = 8080
    # None leaves gRPC out: most clients speak REST, and it costs memory and start-up time.
    grpc_port: int | None = None
    # Counting costs a few percent of a linear model's throughput.
    count_data: bool = True
    # Off until it has proved itself with the models of those who turn it on.
    compile: Compile = Compile.OFF
    latency_thresholds_ms: tuple[float, ...] = ()
    # Endpoints and kube-proxy follow a terminating pod within a second or two.
    drain_seconds: float = 5.0
    # A connection balanced to a pod stays there; this bounds how long an old split lives on.
    max_connection_age_seconds: float = 30.0
    # How far a regressor's prediction may be from its label and count as correct: in the label's
    # unit, and in percent of it. Without them equal means equal.
    feedback_tolerance: float = 0.0
    feedback_tolerance_percent: float = 0.0
    termination_log: Path | None = Path("/dev/termination-log")
    log_level: str = "info"
    limits: Limits = dataclasses.field(default_factory=Limits)
