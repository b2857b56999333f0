"""LitServe: python with_litserve.py MODEL PORT [batching]."""

import sys

import joblib
import litserve
import numpy as np


class Classifier(litserve.LitAPI):
    def __init__(self, path, **options):
        super().__init__(api_path="/predict", **options)
        self.path = path

    def setup(self, device):  # noqa: ARG002 - LitServe calls it so
        self.model = joblib.load(self.path)

    def decode_request(self, request):
        return np.array(request["rows"])

    def predict(self, rows):
        return self.model.predict_proba(rows)

    def encode_response(self, output):
        return {"predictions": output.tolist()}


class Batching(Classifier):
    """Puts the rows of several requests together, and takes their answers apart."""

    def batch(self, inputs):
        self.ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return np.concatenate(inputs)

    def unbatch(self, output):
        return np.split(output, self.ends)


if __name__ == "__main__":
    if "batching" in sys.argv[3:]:
        api = Batching(sys.argv[1], max_batch_size=64, batch_timeout=0.0)
    else:
        api = Classifier(sys.argv[1])
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(
        port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="warning", host="127.0.0.1"
    )
