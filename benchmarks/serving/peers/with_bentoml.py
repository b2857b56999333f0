"""BentoML: python with_bentoml.py MODEL PORT [batching]."""

import os
import sys

import bentoml
import joblib
import numpy as np

# BentoML imports this file again in its worker, which has no arguments of ours.
MODEL = os.environ.setdefault("PEER_MODEL", sys.argv[1] if len(sys.argv) > 1 else "")
BATCHING = os.environ.setdefault("PEER_BATCHING", "1" if "batching" in sys.argv[3:] else "") == "1"


@bentoml.service(name="digits", workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Digits:
    def __init__(self) -> None:
        self.model = joblib.load(MODEL)

    @bentoml.api(route="/predict", batchable=BATCHING, max_batch_size=6400, max_latency_ms=60_000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        Digits.to_asgi(), port=int(sys.argv[2]), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
