"""The command: `python -m benchmarks.decisions [--quick] [--only EXPERIMENT] [--page-only]`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.decisions import against_stable, detection, drifts, false_rollbacks, page, plots, speed, watch

SEED = 20261124
FULL, QUICK = 10_000, 500

EXPERIMENTS: dict[str, tuple[Callable[[int, int], list[dict[str, Any]]], float]] = {
    "false_rollbacks": (false_rollbacks.run, 1.0),
    "bursts": (false_rollbacks.run_bursts, 0.5),
    "detection_requests": (detection.run_requests, 1.0),
    "detection_polls": (detection.run_polls, 0.5),
    "stable_equal": (against_stable.run_equal, 1.0),
    "stable_worse": (against_stable.run_worse, 0.5),
    "guard_lengths": (watch.run_lengths, 0.1),
    "guard_delays": (watch.run_delays, 0.4),
    "drift": (drifts.run, 0.2),
    "speed": (speed.run, 0.1),
}
"""Each experiment, with its share of the runs."""


def main() -> None:
    """Run the experiments, write their results, draw the figures and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} runs instead of {FULL:,}")
    parser.add_argument("--folder", type=Path, default=Path("docs/decisions"), help="where the page is written")
    parser.add_argument("--seed", type=int, default=SEED, help="of all chance (default %(default)s)")
    parser.add_argument("--only", choices=EXPERIMENTS, help="run this again and keep the other stored results")
    parser.add_argument("--page-only", action="store_true", help="draw the page again from the stored results")
    arguments = parser.parse_args()

    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "results.json"
    if not arguments.page_only:
        results = json.loads(stored.read_text()) if arguments.only else {}
        chosen = [arguments.only] if arguments.only else list(EXPERIMENTS)
        results |= _run(chosen, QUICK if arguments.quick else FULL, arguments.seed)
        results |= {"seed": arguments.seed, "quick": arguments.quick}
        stored.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    results = json.loads(stored.read_text())
    plots.draw(results, folder)
    page.write(results, folder / "README.md")
    print(f"wrote {folder / 'README.md'}")


def _run(chosen: list[str], runs: int, seed: int) -> dict[str, Any]:
    against_stable.check_mirror(seed)
    watch.check_mirror(seed)
    results: dict[str, Any] = {}
    for name in chosen:
        experiment, share = EXPERIMENTS[name]
        started = time.perf_counter()
        results[name] = experiment(max(100, int(runs * share)), seed)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return results


if __name__ == "__main__":
    main()
