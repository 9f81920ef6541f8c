"""Opens an OpenVINO model."""

import json


def open_model(folder):
    """Returns the function of canvases to logits and probabilities, and the class names."""
    import openvino

    model = openvino.Core().read_model(folder / "model.xml")
    names = json.loads(model.get_rt_info("class_names").astype(str))
    # In float32, as it was exported, also where the processor has a faster half precision.
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(canvases):
        outputs = compiled(canvases)
        return outputs["logits"].copy(), outputs["probabilities"].copy()

    return run, names
