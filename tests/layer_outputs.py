"""What every layer and policy puts out for one seed and step: `python layer_outputs.py FILE eager|compiled` writes it.

`test_same_on_every_backend.py` runs it on other backends, and takes from it what its own puts out; `thorough` as a
third word takes every size with every batch.
"""

import sys

from keras_dogs import backends

backends.select()

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_dogs  # noqa: E402
from keras_dogs import layers  # noqa: E402
from keras_dogs.models.submodels import image_pipeline  # noqa: E402

SIZES = ((64, 64), (73, 73), (100, 80))
BATCHES = (1, 7, 32)
LAYERS = {
    "crop": lambda: layers.RandomResizedCrop(64, 64, **layers.AUGMENTATIONS["strong"].crop),
    "affine": lambda: layers.RandomAffine(rotation=20, shear=0.2, translation=0.1),
    "colour": lambda: layers.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2),
    "erasing": lambda: layers.RandomErasing(probability=0.8),
    "randaugment": lambda: layers.RandAugment(num_layers=3),
    "mix-up": lambda: layers.Mixing(mixup=0.8),
    "cut-mix": lambda: layers.Mixing(cutmix=1.0),
    "dropout": lambda: layers.CountedDropout(0.3),
}
POLICIES = [name for name in layers.AUGMENTATIONS if name != "keras"]


def build(name: str) -> keras.Model:
    """A layer behind the counter, or all that a policy puts before the backbone."""
    if name in POLICIES:
        return image_pipeline(keras_dogs.build_vit("vit_nano", num_classes=2, augmentation=name))
    images = keras.Input((None,) if name == "dropout" else (None, None, 3))
    return keras.Model(images, LAYERS[name]()(images, layers.DrawKeys(3, name="draw_keys")(images)))


def outputs(name: str, mode: str, thorough: bool) -> dict[str, np.ndarray]:
    """`"name height x width batch"` -> output of the sixth training step."""
    model = build(name)
    model.get_layer("draw_keys").step.assign(5)
    trainable, rest = (
        [weight.value for weight in part] for part in (model.trainable_variables, model.non_trainable_variables)
    )

    def step(images):
        return model.stateless_call(trainable, rest, images, training=True)[0]

    function = backends.compiled(step) if mode == "compiled" else step
    if thorough:
        shapes = [(size, batch) for size in SIZES for batch in BATCHES]
    else:
        shapes = list(zip(SIZES, BATCHES))
    found = {}
    for (height, width), batch in shapes:
        images = np.random.default_rng(height).integers(0, 256, (batch, height, width, 3), dtype="uint8")
        images = images.astype("float32")[:, 0, :, 0] if name == "dropout" else images
        result = keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(images)))
        found[f"{name} {height}x{width} {batch}"] = result
    return found


def all_outputs(mode: str, thorough: bool = False) -> dict[str, np.ndarray]:
    """Of every layer and policy; see `outputs`."""
    found = {}
    for name in [*LAYERS, *POLICIES]:
        found |= outputs(name, mode, thorough)
    return found


if __name__ == "__main__":
    file, mode, *rest = sys.argv[1:]
    np.savez(file, **all_outputs(mode, "thorough" in rest))
