"""`python -m benchmarks.serving.drain 50`: SIGTERM under load, as often as told; counts lost requests."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import skops.io
from tests.model_server import support, test_process


def main(runs: int) -> int:
    answered = lost = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skops"
        skops.io.dump(support.iris_model(), path)
        for number in range(runs):
            with support.process("--model-path", str(path), "--drain-seconds", "0.5") as server:
                load = test_process.Load(server.port, 8, keep_alive=bool(number % 2))
                support.wait_until(lambda load=load: load.answered > 50)  # type: ignore[misc]
                server.terminate()
                code = server.wait_exit()
                load.join()
                answered += load.answered
                if code != 0 or load.lost:
                    lost += 1
                    print(f"run {number}: exit code {code}, lost {load.lost}")
    print(f"{runs - lost} of {runs} runs lost nothing; {answered} requests were answered")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
