"""The figures of docs/attention.md, from two runs of ours on drawn dogs.

`KERAS_BACKEND=torch python scripts/draw_attention.py VIT_RUN RESNET_RUN`; the runs are those of
`python -m keras_dogs.compare --pair embedded`.
"""

import sys
from pathlib import Path

from keras_dogs import backends

backends.select()

import matplotlib

matplotlib.use("Agg")

import numpy as np
from keras import ops
from matplotlib import pyplot

import keras_dogs
from keras_dogs.data.datasets import display_name
from keras_dogs.evaluation import explanation
from keras_dogs.evaluation.inference import class_names_of

DOCS = Path(__file__).parents[1] / "docs"
PATCH = 8


def main():
    """Draws all three."""
    vit, resnet = (keras_dogs.load_classifier(Path(run) / "model.keras") for run in sys.argv[1:])
    test = keras_dogs.load_dataset("drawn_dogs").test
    size = vit.get_layer("crop").compute_output_spec(vit.inputs[0]).shape[1]
    pictures = np.stack([np.asarray(test.read(index).resize((size, size))) for index in range(0, len(test), 101)])
    draw_patches(pictures[1])
    draw_positions(vit)
    draw_where_they_looked(vit, resnet, pictures)


def draw_patches(picture):
    """A picture, cut, and as the sequence that a ViT reads."""
    count = len(picture) // PATCH
    patches = picture.reshape(count, PATCH, count, PATCH, 3).swapaxes(1, 2)
    figure = pyplot.figure(figsize=(7, 3.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 1))
    whole, cut = above.subplots(1, 2)
    whole.imshow(picture)
    gap = np.full((count * (PATCH + 1) - 1,) * 2 + (3,), 255, np.uint8)
    for row in range(count):
        for column in range(count):
            top, left = row * (PATCH + 1), column * (PATCH + 1)
            gap[top : top + PATCH, left : left + PATCH] = patches[row, column]
    cut.imshow(gap)
    shown = patches.reshape(-1, PATCH, PATCH, 3)[:: max(1, count * count // 16)][:16]
    for axis, patch in zip(below.subplots(1, len(shown)), shown):
        axis.imshow(patch)
    for axis in figure.findobj(pyplot.Axes):
        axis.set_axis_off()
    save(figure, "attention_patches.png")


def draw_positions(vit):
    """How alike the learned positions are: each small picture is of one patch's position with all."""
    (positions,) = (
        ops.convert_to_numpy(weight)
        for weight in vit.backbone.weights
        if weight.path.endswith("position_embedding/embeddings")
    )
    positions = positions[-(round((len(positions) - 1) ** 0.5) ** 2) :]
    side = round(len(positions) ** 0.5)
    unit = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    alike = (unit @ unit.T).reshape(side, side, side, side)
    figure, axes = pyplot.subplots(side, side, figsize=(4.4, 4.4))
    for row in range(side):
        for column in range(side):
            axes[row, column].imshow(alike[row, column], vmin=-1, vmax=1, cmap="cividis")
            axes[row, column].set_axis_off()
    save(figure, "attention_positions.png")


def draw_where_they_looked(vit, resnet, pictures):
    """Pictures, a ViT's rollout and a ResNet's Grad-CAM."""
    rollouts = explanation.attention_rollout(vit, pictures)
    logits = ops.convert_to_numpy(resnet(pictures, training=False))
    cams = explanation.grad_cam(resnet, pictures, logits.argmax(axis=1))
    answers = [ops.convert_to_numpy(model(pictures, training=False)).argmax(axis=1) for model in (vit, resnet)]
    names = class_names_of(vit)
    figure, axes = pyplot.subplots(3, len(pictures), figsize=(8, 4.6), layout="constrained")
    for column, picture in enumerate(pictures):
        axes[0, column].imshow(picture)
        for row, heat, answer in ((1, rollouts, answers[0]), (2, cams, answers[1])):
            extent = (0, len(picture), len(picture), 0)
            axes[row, column].imshow(picture.mean(axis=2), cmap="gray", extent=extent)
            axes[row, column].imshow(
                heat[column], cmap="inferno", alpha=0.6, interpolation="bilinear", extent=extent, vmin=0
            )
            axes[row, column].set_title(display_name(names[answer[column]]), fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, label in zip(axes[:, 0], ("picture", "ViT\nattention rollout", "ResNet\nGrad-CAM")):
        axis.set_ylabel(label, fontsize=9)
    save(figure, "attention_looked.jpg")


def save(figure, name: str):
    """As a small file."""
    figure.savefig(DOCS / name, dpi=110, facecolor="white", bbox_inches="tight")
    pyplot.close(figure)
    print(DOCS / name)


if __name__ == "__main__":
    main()
