"""MLServer with its scikit-learn runtime: python with_mlserver.py MODEL PORT [batching]."""

import socket
import sys

import mlserver
import mlserver_sklearn
import uvloop
from mlserver.settings import ModelParameters, ModelSettings, Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def main() -> None:
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=int(sys.argv[2]),
        grpc_port=free_port(),
        parallel_workers=0,
        metrics_endpoint=None,
        gzip_enabled=False,
    )
    batching = {"max_batch_size": 64, "max_batch_time": 0.001} if "batching" in sys.argv[3:] else {}
    model = ModelSettings(
        name="m",
        implementation=mlserver_sklearn.SKLearnModel,
        parameters=ModelParameters(uri=sys.argv[1]),
        **batching,
    )
    await mlserver.MLServer(settings).start([model])


if __name__ == "__main__":
    uvloop.run(main())
