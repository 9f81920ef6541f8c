"""Opens a `.keras` file by plain Keras, on whichever backend it runs."""

import json
import zipfile


def open_model(folder):
    """Returns the function of canvases to logits and probabilities, and the class names."""
    import keras
    import keras_hub  # noqa: F401  its classes are in the file

    file = folder / "model.keras"
    model = keras.saving.load_model(file, compile=False)

    def run(canvases):
        outputs = model.predict_on_batch(canvases)
        return outputs["logits"], outputs["probabilities"]

    with zipfile.ZipFile(file) as archive:
        return run, json.loads(archive.read("class_names.json"))
