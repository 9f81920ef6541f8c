"""Opens a SavedModel by TensorFlow."""

import json


def open_model(folder):
    """Returns the function of canvases to logits and probabilities, and the class names."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder / "saved_model"))
    serve = model.signatures["serving_default"]

    def run(canvases):
        outputs = serve(canvases=tf.constant(canvases))
        return outputs["logits"].numpy(), outputs["probabilities"].numpy()

    run.model = model  # its variables live as long as this
    return run, json.loads((folder / "saved_model" / "assets.extra" / "class_names.json").read_text())
