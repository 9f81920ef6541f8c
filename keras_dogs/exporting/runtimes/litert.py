"""Opens a LiteRT file by its interpreter."""

import json
import os
import zipfile


def open_model(folder):
    """Returns the function of canvases to logits and probabilities, and the class names."""
    from ai_edge_litert.interpreter import Interpreter

    file = folder / "model.tflite"
    interpreter = Interpreter(str(file), num_threads=os.cpu_count())
    given = interpreter.get_input_details()[0]
    # The details do not say which output is which; the signature does, in alphabetical order.
    outputs = sorted(interpreter.get_output_details(), key=lambda output: output["name"])
    shape = None

    def run(canvases):
        nonlocal shape
        if canvases.shape != shape:
            interpreter.resize_tensor_input(given["index"], canvases.shape)
            interpreter.allocate_tensors()
            shape = canvases.shape
        interpreter.set_tensor(given["index"], canvases)
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"]) for output in outputs]

    with zipfile.ZipFile(file) as archive:  # appended to the model, as LiteRT's metadata are
        return run, json.loads(archive.read("class_names.json"))
