"""The least a Python server can do: raw ASGI, one model, no checks, no metrics, no batching.

What a framework or a model server adds is measured against this. Started as
`python -m benchmarks.serving.minimal MODEL PORT`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import orjson
import skops.io
import uvicorn

from kedge_server import trees


def application(model: Any) -> Any:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        tensor = orjson.loads(body)["inputs"][0]
        rows = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
        answer = model.predict_proba(rows)
        output = {"name": "predict_proba", "datatype": "FP64", "shape": answer.shape, "data": answer.ravel()}
        content = orjson.dumps({"model_name": "m", "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


if __name__ == "__main__":
    loaded = skops.io.load(sys.argv[1], trusted=[*trees.TYPES])
    uvicorn.run(
        application(loaded),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
