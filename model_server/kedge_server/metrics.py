"""What the server says about itself to Prometheus.

Counters are plain numbers that only the event loop touches: an increment costs some
ten nanoseconds, where a locked client library's costs a microsecond, and label values
come from the loaded model only, never from a request. Text format 0.0.4:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import bisect
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import prometheus_client
import sklearn

from kedge_server import feedback, quality, spot_checks
from kedge_server.errors import Fault

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

# From a linear model's answer to a client's patience; thresholds are added to these.
LATENCY_LADDER_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
PREDICT_LADDER_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0)
ROWS_LADDER = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)

QUALITY_FAMILIES = frozenset(
    f"kedge_server_{name}"
    for name in (
        "feature_bin_total",
        "feature_missing_total",
        "feature_new_category_total",
        "feature_out_of_range_total",
        "feature_reference_rows",
        "invalid_rows_total",
        "prediction_bin_total",
        "prediction_reference_rows",
    )
)

_CODE_CLASSES = {Fault.NONE: "2xx", Fault.CLIENT: "4xx", Fault.SERVER: "5xx", Fault.OVERLOAD: "5xx"}
_SUFFIXES = ("_bucket", "_sum", "_count")


def number(value: float) -> str:
    """Writes a number so that `float` reads exactly the same one back."""
    as_float = float(value)
    return str(int(as_float)) if as_float.is_integer() and abs(as_float) < 1 << 53 else repr(as_float)


def labels(pairs: dict[str, str]) -> str:
    """Returns `{a="b",...}`, escaped; an empty string without pairs."""
    if not pairs:
        return ""
    escaped = (
        f'{k}="{v}"'
        for k, v in ((k, v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for k, v in pairs.items())
    )
    return "{" + ",".join(escaped) + "}"


class Histogram:
    """Counts observations at or below each edge.

    Args:
        edges: Upper bounds, ascending, without infinity.
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = list(edges)
        self._counts = [0] * (len(self._edges) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Adds one observation."""
        self._counts[bisect.bisect_left(self._edges, value)] += 1
        self.sum += value

    def samples(self, name: str, pairs: dict[str, str]) -> Iterable[str]:
        """Yields the lines of this histogram; buckets are cumulative."""
        total = 0
        for edge, count in zip([*map(number, self._edges), "+Inf"], self._counts, strict=True):
            total += count
            yield f"{name}_bucket{labels({**pairs, 'le': edge})} {total}"
        yield f"{name}_sum{labels(pairs)} {number(self.sum)}"
        yield f"{name}_count{labels(pairs)} {total}"


class Metrics:
    """Every family of this process.

    Args:
        model_name: Value of the `model` label.
        latency_thresholds_ms: Thresholds of objectives; an edge lies exactly on each.
        queue_rows: Tells how many rows wait now.
    """

    def __init__(
        self,
        model_name: str,
        latency_thresholds_ms: Sequence[float] = (),
        queue_rows: Callable[[], int] = lambda: 0,
    ) -> None:
        self._model = {"model": model_name}
        self._requests = dict.fromkeys(Fault, 0)
        thresholds = {threshold / 1000 for threshold in latency_thresholds_ms}
        self._duration = Histogram(sorted(thresholds.union(LATENCY_LADDER_SECONDS)))
        self._predict = Histogram(PREDICT_LADDER_SECONDS)
        self._batch_rows = Histogram(ROWS_LADDER)
        self._rows = 0
        self._info: dict[str, str] | None = None
        self.queue_rows = queue_rows
        self.feedback_counts: Mapping[feedback.Outcome, int] = dict.fromkeys(feedback.Outcome, 0)
        self.quality: quality.Quality | None = None
        self.compiled: spot_checks.Compiled | None = None
        self._registry = prometheus_client.CollectorRegistry(auto_describe=True)
        prometheus_client.ProcessCollector(registry=self._registry)
        prometheus_client.GCCollector(registry=self._registry)
        prometheus_client.PlatformCollector(registry=self._registry)
        self._families: dict[str, tuple[str, str, Callable[[str], Iterable[str]]]] = {
            "kedge_server_requests_total": (
                "counter",
                "Infer requests by class of status and by whose fault the outcome is.",
                self._request_samples,
            ),
            "kedge_server_request_duration_seconds": (
                "histogram",
                "Time from the first byte of an infer request to the end of its answer, answered ones only.",
                lambda name: self._duration.samples(name, self._model),
            ),
            "kedge_server_predict_duration_seconds": (
                "histogram",
                "Time that the worker took for one batch.",
                lambda name: self._predict.samples(name, self._model),
            ),
            "kedge_server_batch_rows": (
                "histogram",
                "Rows of one batch.",
                lambda name: self._batch_rows.samples(name, self._model),
            ),
            "kedge_server_rows_total": (
                "counter",
                "Rows that were predicted.",
                lambda name: [f"{name}{labels(self._model)} {self._rows}"],
            ),
            "kedge_server_queue_rows": (
                "gauge",
                "Rows that wait for the worker now.",
                lambda name: [f"{name}{labels(self._model)} {self.queue_rows()}"],
            ),
            "kedge_server_feedback_total": (
                "counter",
                "Labels that came back, by whether the prediction was right.",
                lambda name: [
                    f"{name}{labels({**self._model, 'outcome': outcome.value})} {count}"
                    for outcome, count in self.feedback_counts.items()
                ],
            ),
            "kedge_server_model_info": (
                "gauge",
                "What is loaded; absent until it is.",
                lambda name: [f"{name}{labels(self._info)} 1"] if self._info else [],
            ),
            "kedge_server_compiled_info": (
                "gauge",
                "Which methods are answered by a compiled form, or why none is; absent unless it was asked for.",
                self._compiled_info_samples,
            ),
            "kedge_server_compiled_checked_rows_total": (
                "counter",
                "Live rows that were predicted by scikit-learn as well, and compared.",
                lambda name: self._compiled_samples(name, "checked_rows"),
            ),
            "kedge_server_compiled_mismatched_rows_total": (
                "counter",
                "Live rows in which the compiled form differed; their users got scikit-learn's answer.",
                lambda name: self._compiled_samples(name, "mismatched_rows"),
            ),
        }

    def answered(self, fault: Fault, seconds: float) -> None:
        """Counts one infer request that took `seconds`."""
        self._requests[fault] += 1
        if fault is Fault.NONE:
            self._duration.observe(seconds)

    def predicted(self, rows: int, seconds: float) -> None:
        """Counts one batch."""
        self._rows += rows
        self._batch_rows.observe(rows)
        self._predict.observe(seconds)

    def loaded(self, version: str, digest: str, profile: str = "") -> None:
        """Tells what is served from now on; `profile` is the digest of its profile, if it has one."""
        self._info = {
            **self._model,
            "version": version,
            "digest": digest,
            "profile": profile,
            "sklearn": sklearn.__version__,
            "python": platform.python_version(),
        }

    def render(self, names: Sequence[str] = ()) -> bytes:
        """Returns the page, or only the families in `names` (a sample's name will do)."""
        wanted = {_family(name) for name in names} | set(names)
        lines: list[str] = []
        for name, (kind, help_text, samples) in self._families.items():
            if not names or name in wanted:
                lines.append(f"# HELP {name} {help_text}")
                lines.append(f"# TYPE {name} {kind}")
                lines.extend(samples(name))
        if self.quality is not None and (not names or wanted & QUALITY_FAMILIES):
            lines.extend(self._quality_lines(wanted if names else QUALITY_FAMILIES))
        own = "\n".join(lines) + "\n" if lines else ""
        if not names:
            return own.encode() + prometheus_client.generate_latest(self._registry)
        others = [name for name in names if name not in self._families and name not in QUALITY_FAMILIES]
        if not others:
            return own.encode()
        return own.encode() + prometheus_client.generate_latest(self._registry.restricted_registry(others))

    def _quality_lines(self, wanted: AbstractSet[str]) -> Iterable[str]:
        assert self.quality is not None  # noqa: S101 - the caller has looked
        for name, kind, help_text, samples in self.quality.families():
            if name in wanted:
                yield f"# HELP {name} {help_text}"
                yield f"# TYPE {name} {kind}"
                for pairs, value in samples:
                    yield f"{name}{labels({**self._model, **pairs})} {value}"

    def _compiled_info_samples(self, name: str) -> Iterable[str]:
        if self.compiled is None:
            return []
        pairs = {
            **self._model,
            "state": "Compiled" if self.compiled.methods else "NotCompiled",
            "reason": self.compiled.reason.value,
            "methods": ",".join(self.compiled.methods),
        }
        return [f"{name}{labels(pairs)} 1"]

    def _compiled_samples(self, name: str, attribute: str) -> Iterable[str]:
        if self.compiled is None:
            return []
        return [f"{name}{labels(self._model)} {getattr(self.compiled, attribute)}"]

    def _request_samples(self, name: str) -> Iterable[str]:
        for fault, count in self._requests.items():
            pairs = {**self._model, "code_class": _CODE_CLASSES[fault], "fault": fault.value}
            yield f"{name}{labels(pairs)} {count}"


def _family(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
