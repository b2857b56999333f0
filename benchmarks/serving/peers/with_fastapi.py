"""FastAPI on uvicorn: python with_fastapi.py MODEL PORT."""

import sys

import fastapi
import joblib
import numpy as np
import orjson
import pydantic
import uvicorn


class Body(pydantic.BaseModel):
    rows: list[list[float]]


model = joblib.load(sys.argv[1])
app = fastapi.FastAPI()


@app.post("/predict")
async def predict(body: Body) -> fastapi.Response:
    answer = model.predict_proba(np.array(body.rows))
    content = orjson.dumps({"predictions": answer}, option=orjson.OPT_SERIALIZE_NUMPY)
    return fastapi.Response(content, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[2]), loop="uvloop", http="httptools", access_log=False, log_level="warning", ws="none"
    )
