"""Make the embedded nano presets from nothing: `KERAS_BACKEND=tensorflow python scripts/train_nano_presets.py`.

Trains `vit_nano` and `resnet_nano` on the first half of the drawn breeds (`PRETRAINING_BREEDS`; the default dataset is
the other half) and stores each as a KerasHub preset folder, with its image converter and head, under
`keras_dogs/weights/embedded/`.
About half an hour on two CPU cores. Weights differ in the last digits from machine to machine.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from keras_dogs import backends
from keras_dogs.errors import UserError

try:
    backends.select()
except UserError as error:
    sys.exit(str(error))

import keras
import keras_hub
import numpy as np

from keras_dogs.data.datasets.drawn_breeds import PRETRAINING_BREEDS
from keras_dogs.data.datasets.drawn_breeds import TRAITS
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs
from keras_dogs.data.loaders.batches import EpochOrder
from keras_dogs.data.loaders.batches import TrainingBatches
from keras_dogs.data.loaders.canvases import decode_split
from keras_dogs.evaluation.evaluating import evaluate_classifier
from keras_dogs.layers import AUGMENTATIONS
from keras_dogs.models import builders
from keras_dogs.models import presets
from keras_dogs.models import submodels

# The preset's classifier class and image converter class of KerasHub.
TASKS = {
    "vit_nano": (keras_hub.models.ViTImageClassifier, keras_hub.layers.ViTImageConverter),
    "resnet_nano": (keras_hub.models.ResNetImageClassifier, keras_hub.layers.ResNetImageConverter),
}
TRAITS_WEIGHT = 4.0
# (breed, trait value): 1.0 where the breed has it.
TRAITS_OF_BREED = np.array(
    [
        [float(getattr(breed, trait) == value) for trait, values in TRAITS.items() for value in values]
        for breed in PRETRAINING_BREEDS
    ],
    dtype="float32",
)
LOGITS_FILE = Path(__file__).parents[1] / "tests" / "embedded_logits.json"
EPOCHS = {"vit_nano": 20, "resnet_nano": 6}
TRAIN_A_BREED, TEST_A_BREED = 600, 25


def main():
    """Trains the presets that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(TASKS), help="vit_nano, resnet_nano or both")
    parser.add_argument("--epochs", type=int, help=f"default: {EPOCHS}")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--output", type=Path, default=presets.EMBEDDED_FOLDER)
    parser.add_argument(
        "--logits-only", action="store_true", help="only write down the logits of the presets there are"
    )
    flags = parser.parse_args()
    if flags.logits_only:
        write_logits()
        return

    dataset = load_drawn_dogs(0, PRETRAINING_BREEDS, {"train": TRAIN_A_BREED, "test": TEST_A_BREED})
    size = builders.default_canvas_size(presets.PRESETS["vit_nano"].image_size, AUGMENTATIONS["light"])
    train, test = decode_split(dataset.train, size), decode_split(dataset.test, size)
    for name in flags.presets:
        classifier = pretrain(name, train, flags.epochs or EPOCHS[name], flags.learning_rate)
        scores = evaluate_classifier(classifier, test.images, test.labels).scores
        print(f"{name}: top-1 {scores.top1_accuracy:.1%} on new pictures of the breeds it was made on")
        save_preset(name, classifier, flags.output / name)
    if flags.output == presets.EMBEDDED_FOLDER:
        write_logits()


def pretrain(name: str, train, epochs: int, learning_rate: float) -> keras.Model:
    """Trains from random weights to name the breeds and, by a second head that is thrown away, their traits.

    Colour and pattern alone tell most of the breeds apart, so that breeds alone would teach little of ears and tails;
    other breeds then ask for them. AdamW, warm-up and cosine, label smoothing, light augmentation.
    """
    keras.utils.set_random_seed(0)
    num_breeds = len(PRETRAINING_BREEDS)
    classifier = builders.build_classifier(name, num_breeds, augmentation="light", load_weights=False)
    features = submodels.feature_extractor(classifier).output
    traits = keras.layers.Dense(TRAITS_OF_BREED.shape[1], name="traits")(features)
    both = keras.Model(classifier.input, keras.layers.Concatenate()([classifier.output, traits]))

    def loss(targets, logits):
        breeds = keras.losses.categorical_crossentropy(
            targets[:, :num_breeds], logits[:, :num_breeds], from_logits=True, label_smoothing=0.1
        )
        traits = keras.losses.binary_crossentropy(targets[:, num_breeds:], logits[:, num_breeds:], from_logits=True)
        return breeds + TRAITS_WEIGHT * traits

    def accuracy(targets, logits):
        return keras.metrics.categorical_accuracy(targets[:, :num_breeds], logits[:, :num_breeds])

    targets = np.concatenate([np.eye(num_breeds, dtype="float32"), TRAITS_OF_BREED], axis=1)[train.labels]
    batches = TrainingBatches(train.images, targets, 64, seed=0)
    steps = len(batches) * epochs
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 20, warmup_target=learning_rate, warmup_steps=steps // 20
    )
    both.compile(keras.optimizers.AdamW(schedule, weight_decay=0.05, global_clipnorm=1.0), loss, metrics=[accuracy])
    both.fit(batches, epochs=epochs, shuffle=False, verbose=2, callbacks=[EpochOrder(batches)])
    return classifier


def save_preset(name: str, classifier: keras.Model, folder: Path):
    """Writes a KerasHub preset folder: backbone, image converter and head."""
    task_class, converter_class = TASKS[name]
    scale, offset = presets.CONVERSIONS[presets.PRESETS[name].conversion]
    size = presets.PRESETS[name].image_size
    converter = converter_class(
        image_size=(size, size), scale=list(scale), offset=list(offset), crop_to_aspect_ratio=False
    )
    task = task_class(
        backbone=classifier.backbone,
        num_classes=len(PRETRAINING_BREEDS),
        preprocessor=task_class.preprocessor_cls(image_converter=converter),
    )
    task.output_dense.set_weights(classifier.get_layer("head").get_weights())
    shutil.rmtree(folder, ignore_errors=True)
    task.save_to_preset(str(folder))


def write_logits():
    """Writes down what the presets say of eight dogs, to six digits; the tests hold every backend to it."""
    test = load_drawn_dogs().test
    size = builders.default_canvas_size(64, AUGMENTATIONS["light"])
    images = decode_split(test.select(range(0, len(test), 75)), size).images
    logits = {
        name: builders.build_classifier(name, num_classes=None).predict_on_batch(images).astype(float).round(6).tolist()
        for name in TASKS
    }
    LOGITS_FILE.write_text(json.dumps(logits) + "\n")


if __name__ == "__main__":
    main()
