"""Draw what each augmentation policy makes of some dogs: `python scripts/draw_policies.py docs/augmentation.jpg`.

`--pictures FOLDER` takes the pictures of a folder instead of drawn dogs. (The repository's own sheet is of drawn dogs:
the photographs of Stanford Dogs have no licence that would let them be in it.)
"""

import argparse
from pathlib import Path

from keras_dogs import backends

backends.select()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from PIL import ImageDraw  # noqa: E402

from keras_dogs import layers  # noqa: E402
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs  # noqa: E402
from keras_dogs.data.datasets.opening import open_picture  # noqa: E402
from keras_dogs.data.datasets.opening import to_canvas  # noqa: E402
from keras_dogs.evaluation.inference import find_pictures  # noqa: E402
from keras_dogs.models.builders import build_classifier  # noqa: E402
from keras_dogs.models.submodels import image_pipeline  # noqa: E402

COLUMNS, GAP, TITLE = 10, 3, 14


def main():
    """A row a policy, each with the same dogs; the first row is what a classifier sees without augmentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--size", type=int, default=96, help="side of a picture, pixels")
    flags = parser.parse_args()
    canvases = choose_canvases(flags.pictures, round(flags.size * 8 / 7))
    policies = [name for name in layers.AUGMENTATIONS if name != "keras"]
    step = flags.size + GAP
    sheet = Image.new("RGB", (COLUMNS * step - GAP, len(policies) * (step + TITLE) - GAP), "white")
    titles = ImageDraw.Draw(sheet)
    for row, policy in enumerate(policies):
        top = row * (step + TITLE)
        titles.text((1, top), policy, fill="black")
        for column, picture in enumerate(augment(canvases, policy, flags.size)):
            sheet.paste(Image.fromarray(picture), (column * step, top + TITLE))
    sheet.save(flags.file, quality=85)


def choose_canvases(folder: Path | None, size: int) -> np.ndarray:
    """Ten pictures, spread over the folder or over the drawn breeds."""
    if folder is None:
        test = load_drawn_dogs().test
        pictures = [test.read(index) for index in range(0, len(test), len(test) // COLUMNS)]
    else:
        files = find_pictures([str(folder)])
        pictures = [open_picture(file) for file in files[:: max(len(files) // COLUMNS, 1)]]
    return np.stack([to_canvas(picture, size) for picture in pictures[:COLUMNS]])


def augment(canvases: np.ndarray, policy: str, size: int) -> np.ndarray:
    """The canvases after the policy's first step, without the conversion: uint8."""
    classifier = build_classifier("resnet_nano", 2, image_size=size, augmentation=policy)
    conversion = classifier.get_layer("conversion")
    scale, offset = (np.array(values) for values in (conversion.scale, conversion.offset))
    seen = keras.ops.convert_to_numpy(image_pipeline(classifier)(canvases, training=True))
    return np.clip((seen - offset) / scale + 0.5, 0, 255).astype("uint8")


if __name__ == "__main__":
    main()
