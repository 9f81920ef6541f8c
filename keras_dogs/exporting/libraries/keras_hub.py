"""Opens a preset by stock KerasHub, on whichever backend it runs."""


def open_model(folder):
    """Returns `prepare`, `run` and the class names."""
    import keras
    import keras_hub
    import numpy as np
    from PIL import Image
    from PIL import ImageOps

    classifier = keras_hub.models.ImageClassifier.from_preset(str(folder))

    def prepare(file):
        with Image.open(file) as opened:
            picture = keras.utils.img_to_array(ImageOps.exif_transpose(opened).convert("RGB"))
        return np.asarray(keras.ops.convert_to_numpy(classifier.preprocessor(picture)))

    def run(pixels):
        return keras.ops.convert_to_numpy(classifier(pixels, training=False))

    return prepare, run, (folder / "labels.txt").read_text("utf-8").split("\n")[:-1]
