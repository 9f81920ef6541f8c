"""The Open Inference Protocol, version 2, over HTTP: what KServe, Triton and their clients speak.

Tensors are JSON. A model takes `canvases`, UINT8 `(batch, rows, columns, 3)`, and gives `logits` and `probabilities`.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

import itertools
import math
from typing import Annotated
from typing import Any
from typing import NotRequired
from typing import TypedDict

import numpy as np
from msgspec import Meta
from starlette.exceptions import HTTPException

from keras_dogs.errors import UserError
from keras_dogs.evaluation import answers
from keras_dogs.serving.served import Served
from keras_dogs.system import reading

INPUT, OUTPUTS = "canvases", ("logits", "probabilities")


class _Input(TypedDict):
    name: str
    shape: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(max_length=8)]
    datatype: str
    data: list[Any]


class _Output(TypedDict):
    name: str


class _Request(TypedDict):
    inputs: Annotated[list[_Input], Meta(max_length=8)]
    id: NotRequired[str]
    outputs: NotRequired[Annotated[list[_Output], Meta(max_length=8)]]


def describe(served: Served) -> dict:
    """Returns the metadata of a model."""
    return {
        "name": served.name,
        "versions": ["1"],
        "platform": f"keras_dogs_{served.facts['format']}",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *served.canvas_shape]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, len(served.class_names)]} for name in OUTPUTS],
    }


def read_request(body: bytes, served: Served, max_batch: int) -> tuple[np.ndarray, dict]:
    """Reads an inference request.

    Returns:
        The canvases, uint8 `(batch, rows, columns, 3)`, and the request.

    Raises:
        HTTPException: 400; the text says what is wrong.
    """
    try:
        request = reading.parse_json(body, _Request, "the request")
    except UserError as error:
        raise HTTPException(400, str(error)) from error
    given = request["inputs"]
    if [each["name"] for each in given] != [INPUT]:
        raise HTTPException(400, f"inputs: one is needed, named {INPUT}")
    expected = f"{INPUT}: UINT8 [1 to {max_batch}, {', '.join(map(str, served.canvas_shape))}] is needed"
    shape = given[0]["shape"]
    if given[0]["datatype"] != "UINT8" or tuple(shape[1:]) != served.canvas_shape or not 1 <= shape[0] <= max_batch:
        raise HTTPException(400, expected)
    unknown = [each["name"] for each in request.get("outputs", ()) if each["name"] not in OUTPUTS]
    if unknown:
        raise HTTPException(400, f"outputs: there are {' and '.join(OUTPUTS)}")
    return _tensor(given[0]["data"], shape), request


def _tensor(data: list, shape: list[int]) -> np.ndarray:
    """Returns numbers, flat or nested, as a tensor."""
    try:
        for _ in shape[1:]:
            if data and isinstance(data[0], list):
                data = list(itertools.chain.from_iterable(data))
        return np.frombuffer(bytes(data), np.uint8).reshape(shape)  # `bytes` takes whole numbers from 0 to 255 alone
    except (ValueError, TypeError) as error:
        raise HTTPException(
            400, f"{INPUT}: data has to be {math.prod(shape):,} whole numbers from 0 to 255, as the shape says"
        ) from error


def answer(served: Served, logits: np.ndarray, request: dict) -> dict:
    """Returns the answer to a request, with the outputs that it asks for; both where it asks for none."""
    found = dict(zip(OUTPUTS, (logits, answers.probabilities_of(logits, served.calibration.temperature))))
    wanted = [each["name"] for each in request.get("outputs", ())] or OUTPUTS
    outputs = [
        {"name": name, "datatype": "FP32", "shape": list(logits.shape), "data": found[name].ravel().tolist()}
        for name in wanted
    ]
    said = {"id": request["id"]} if "id" in request else {}
    return {"model_name": served.name, "model_version": "1", **said, "outputs": outputs}
