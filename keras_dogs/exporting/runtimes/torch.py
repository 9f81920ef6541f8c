"""Opens an ExportedProgram by PyTorch."""

import json


def open_model(folder):
    """Returns the function of canvases to logits and probabilities, and the class names."""
    import torch

    extra = {"class_names.json": ""}
    model = torch.export.load(folder / "model.pt2", extra_files=extra).module()

    def run(canvases):
        with torch.inference_mode():
            return [output.numpy() for output in model(torch.from_numpy(canvases))]

    return run, json.loads(extra["class_names.json"])
