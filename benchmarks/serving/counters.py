"""`python -m benchmarks.serving.counters`: what the data-quality and drift counters cost a request.

Two servers that do the same differ by a tenth from start to start, which is more than the counters cost. So here one
process answers with and without them by turns, each turn as long as a block of rows that is counted together. Nothing
is sent: of decoding, predicting and encoding alone the cost is a larger share than of all that a server does. About
2 min.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

from benchmarks.serving import models
from benchmarks.serving.servers import SERVER_CORE

from kedge_server import decoding, encoding, packages, predicting, protocol, quality, signature

# Rows a request, and requests a batch: what the cells of docs/serving come to.
SIZES = ((1, 1), (1, 8), (1, 60), (100, 1), (100, 16))
SECONDS = 10


class Answering:
    """All that is done for a request between its body and its answer's.

    Args:
        folder: The model's package.
        model: The same model.
    """

    def __init__(self, folder: Path, model: object) -> None:
        self._signature = signature.describe(model)
        self._predictor = predicting.Predictor(model, self._signature)
        self._uncounted = self._predictor.observer
        self._counted = quality.Quality(packages.read(folder, None).profile, self._signature).remember

    def seconds(self, batches: list[list[bytes]], *, counted: bool) -> float:
        """Returns how long it takes to answer these batches of bodies."""
        self._predictor.observer = self._counted if counted else self._uncounted
        started = time.perf_counter()
        for bodies in batches:
            requests = [decoding.infer_request(body, self._signature) for body in bodies]
            for request, outcome in zip(requests, self._predictor.run(requests), strict=True):
                encoding.infer_response("m", "1", request, _outputs(outcome))
        return time.perf_counter() - started


def _outputs(outcome: predicting.Outcome) -> list[protocol.Output]:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def measure(answering: Answering, rows: int, batch: int) -> str:
    """Returns a line about batches of this size."""
    bodies = models.bodies(rows, models.OPEN_INFERENCE)
    batches = [bodies[start : start + batch] for start in range(0, len(bodies) - batch + 1, batch)]
    turn = math.ceil(quality.BLOCK_ROWS / (rows * batch))
    taken: dict[bool, list[float]] = {True: [], False: []}
    end = time.monotonic() + SECONDS
    coming, orders = itertools.cycle(batches), itertools.cycle([(False, True), (True, False)])
    while time.monotonic() < end:
        chosen = list(itertools.islice(coming, turn))
        for counted in next(orders):
            taken[counted].append(answering.seconds(chosen, counted=counted) / (turn * batch))
    on, off = (1e6 * statistics.median(taken[counted]) for counted in (True, False))
    return f"{on:9.1f} us counted, {off:9.1f} us not: {on / off - 1:5.1%}, {len(taken[True])} turns of each"


def main() -> None:
    os.sched_setaffinity(0, {SERVER_CORE})
    with tempfile.TemporaryDirectory() as folder:
        fitted = models.make(Path(folder))
        warnings.simplefilter("ignore")  # as the server does once it is ready
        for name, model in fitted.items():
            answering = Answering(Path(folder) / name, model)
            for rows, batch in SIZES:
                print(f"{name}, {rows:3} rows a request, {batch:2} requests a batch:", end=" ", flush=True)
                print(measure(answering, rows, batch), flush=True)


if __name__ == "__main__":
    main()
