"""Opens an ONNX file by ONNX Runtime."""

import json


def open_model(folder):
    """Returns the function of canvases to logits and probabilities, and the class names."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    return lambda canvases: session.run(["logits", "probabilities"], {"canvases": canvases}), names
