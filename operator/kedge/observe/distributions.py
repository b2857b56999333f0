"""Reads the histograms of a model server's metrics page: live rows and the reference's, over the same bins. Pure.

A page has more than a thousand such lines for a wide model. The client library's parser takes ten times as long
for them as one regular expression, and the operator reads them from every pod, so here they are matched by hand.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

from kedge.api import specs
from kedge.observe.exposition import ExpositionError
from kedge.observe.snapshot import Distributions, Histogram, Sample

KINDS = {
    "feature": ("kedge_server_feature_bin_total", "kedge_server_feature_reference_rows"),
    "prediction": ("kedge_server_prediction_bin_total", "kedge_server_prediction_reference_rows"),
}
"""What the histograms are of, with the families of live and of reference rows."""
FAMILIES = tuple(family for families in KINDS.values() for family in families)

_LINE = re.compile(rf"^({'|'.join(FAMILIES)})\{{(.*)\}} (\S+)(?: \d+)?$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")

Rows = dict[str, dict[str, int]]
"""Rows by the name of a histogram and by its bin."""


def read(page: str) -> dict[str, Histogram]:
    """Returns the histograms on a page, such as `feature age` or `prediction predict`; none without a profile.

    Raises:
        ExpositionError: A value is not a whole, non-negative number, a bin stands there twice, or the live bins are
            not the reference's.
    """
    families: dict[str, Rows] = {family: {} for family in FAMILIES}
    for family, labels, value in _LINE.findall(page):
        told = {name: _ESCAPE.sub(_unescaped, text) for name, text in _LABEL.findall(labels)}
        name, label = told.get("feature") or told.get("output"), told.get("bin")
        if name is None or label is None or label in families[family].get(name, {}):
            raise ExpositionError(f"the metrics page has {family} without its labels or twice: {labels[:200]}")
        families[family].setdefault(name, {})[label] = _whole(family, value)
    return {
        f"{kind} {name}": _histogram(name, rows, families[reference].get(name))
        for kind, (live, reference) in KINDS.items()
        for name, rows in families[live].items()
    }


def total(readings: Iterable[tuple[Sample, Mapping[str, Histogram]]]) -> dict[str, Distributions]:
    """Returns the sums over the pods of each revision; what its pods count over different bins is left out."""
    sums: dict[str, Distributions] = {}
    for sample, histograms in readings:
        events = sample.counts.get(specs.REQUESTS.key)
        own = Distributions(
            revision=sample.revision,
            processes={sample.pod_uid: sample.process_started_at},
            requests=0 if events is None else events.total,
            histograms=histograms,
        )
        before = sums.get(sample.revision)
        sums[sample.revision] = own if before is None else _plus(before, own)
    return sums


def _plus(one: Distributions, other: Distributions) -> Distributions:
    return Distributions(
        revision=one.revision,
        processes={**one.processes, **other.processes},
        requests=one.requests + other.requests,
        histograms={
            name: dataclasses.replace(ours, rows=tuple(map(sum, zip(ours.rows, theirs.rows, strict=True))))
            for name, ours in one.histograms.items()
            if (theirs := other.histograms.get(name)) is not None and theirs.bins == ours.bins
        },
    )


def _histogram(name: str, live: Mapping[str, int], reference: Mapping[str, int] | None) -> Histogram:
    if reference is not None and reference.keys() != live.keys():
        raise ExpositionError(f"the metrics page has other bins for the reference of {name}")
    return Histogram(
        bins=tuple(live), rows=tuple(live.values()), reference=tuple((reference or {}).get(one, 0) for one in live)
    )


def _whole(family: str, text: str) -> int:
    try:
        number = float(text)
    except ValueError as error:
        raise ExpositionError(f"the metrics page has {family} = {text[:50]}") from error
    if not (number >= 0 and number.is_integer()):
        raise ExpositionError(f"the metrics page has {family} = {text[:50]}")
    return int(number)


def _unescaped(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]
