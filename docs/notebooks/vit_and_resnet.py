# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A Vision Transformer and a ResNet look at dogs
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-dogs/keras_dogs/blob/main/docs/notebooks/vit_and_resnet.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/keras-dogs/keras_dogs/blob/main/docs/notebooks/vit_and_resnet.ipynb)
#
# You fine-tune a small ViT and a small ResNet on drawn dogs, look at the attention of the one and at the features of the other, and find out which is
# better, and whether you may say so. It runs in three minutes on two cores, takes half an hour to read, and downloads nothing. One switch below turns it into the same on Stanford
# Dogs with models of usual size, for which you want a GPU.

# %%
# On Colab and Kaggle, install the package first.
import importlib.util
import subprocess
import sys

REPOSITORY = "https://github.com/keras-dogs/keras_dogs"
if importlib.util.find_spec("keras_dogs") is None:
    package = f"keras_dogs[jax,stanford-dogs] @ git+{REPOSITORY}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or "tensorflow", or "torch": nothing else changes

import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_dogs

# The switch: real dogs and real weights. It downloads 778 MiB of pictures and the weights.
REAL = False
DATASET = "stanford_dogs" if REAL else "drawn_dogs"
VIT = "vit_base_patch16_224_imagenet21k" if REAL else "vit_nano"
RESNET = "resnet_50_imagenet" if REAL else "resnet_nano"
EPOCHS = 5

RUNS = Path(tempfile.mkdtemp(prefix="keras_dogs_notebook_"))
print(f"Keras {keras.__version__} on {keras.backend.backend()}")

# %% [markdown]
# ## The pictures
#
# A dataset has three splits. Validation chooses the epoch; the test split is scored once, at the end. Nothing that you decide may look at it before.

# %%
dataset = keras_dogs.load_dataset(DATASET)
print({name: len(split) for name, split in dataset.splits.items()}, "pictures of", len(dataset.class_names), "breeds")


def breed(name):
    return name.partition("-")[2].replace("_", " ") or name


figure, axes = plt.subplots(2, 6, figsize=(9, 3.4), layout="constrained")
for place, axis in enumerate(axes.flat):
    index = place * len(dataset.test) // axes.size
    axis.imshow(dataset.test.read(index))
    axis.set_title(breed(dataset.class_names[dataset.test.labels[index]]), fontsize=8)
    axis.set_axis_off()

# %% [markdown]
# ## A picture as a sequence
#
# "An Image is Worth 16x16 Words" (Dosovitskiy et al., arXiv 2010.11929): a ViT cuts the picture into squares and calls each a word. A learned matrix
# turns the pixels of a square into a vector, a *token*. A learned vector for each place is added, or the model could not tell a dog from a jigsaw of the same
# dog. One more token, the *class token*, stands before all others and gathers what the answer needs.

# %%
vit = keras_dogs.build_vit(VIT, num_classes=len(dataset.class_names), class_names=dataset.class_names)
resnet = keras_dogs.build_resnet(RESNET, num_classes=len(dataset.class_names), class_names=dataset.class_names)
print(f"ViT {vit.count_params():,} parameters, ResNet {resnet.count_params():,}")

attention = keras_dogs.attention_weights(vit, np.asarray(dataset.test.read(0))[None])
side = round((attention[0].shape[-1] - 1) ** 0.5)
print(f"{len(attention)} blocks of {attention[0].shape[1]} heads over {side} x {side} patches and the class token")

# %%
picture = dataset.test.read(0).resize((side * 24, side * 24))
pixels = np.asarray(picture).reshape(side, 24, side, 24, 3).swapaxes(1, 2)
figure, axes = plt.subplots(side, side, figsize=(3.2, 3.2))
for row in range(side):
    for column in range(side):
        axes[row, column].imshow(pixels[row, column])
        axes[row, column].set_axis_off()

# %% [markdown]
# ## The block
#
# Each block does two things to every token, and adds the result to what was there (a *shortcut*). Attention lets tokens exchange what they know; the
# MLP transforms each token on its own. `LN` brings a token to mean 0 and variance 1 first.

# %%
figure, axis = plt.subplots(figsize=(8.6, 1.9), layout="constrained")
parts = ["tokens", "LN", "attention", "+", "LN", "MLP", "+", "tokens"]
for place, part in enumerate(parts):
    shade = {"attention": "#f4b183", "MLP": "#9dc3e6"}.get(part, "#eeeeee")
    axis.text(
        place,
        0,
        part,
        ha="center",
        va="center",
        fontsize=10,
        bbox=dict(boxstyle="round,pad=0.4", fc=shade, ec="#555555"),
    )
    if place:
        axis.annotate("", (place - 0.36, 0), (place - 0.64, 0), arrowprops=dict(arrowstyle="->", color="#555555"))
for start, end in ((0, 3), (3, 6)):
    axis.annotate(
        "",
        (end, 0.16),
        (start, 0.16),
        arrowprops=dict(arrowstyle="->", color="#999999", connectionstyle="arc3,rad=-0.35"),
    )
    axis.text((start + end) / 2, 0.72, "shortcut", ha="center", fontsize=8, color="#777777")
axis.set_xlim(-0.6, 7.6)
axis.set_ylim(-0.4, 0.9)
axis.set_axis_off()

# %% [markdown]
# ## Fine-tuning both
#
# The same procedure as `python -m keras_dogs.train`: the same batches and crops for both models, and the same on any backend.

# %%
runs = {}
for name, preset in {"ViT": VIT, "ResNet": RESNET}.items():
    config = keras_dogs.TrainConfig(preset=preset, dataset=DATASET, epochs=EPOCHS, output=RUNS / name)
    runs[name] = keras_dogs.fine_tune(config)

# %%
colours = {"ViT": "#d1495b", "ResNet": "#00798c"}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for name, run in runs.items():
    steps = np.genfromtxt(run.folder / "steps.csv", delimiter=",", names=True)
    history = np.genfromtxt(run.folder / "history.csv", delimiter=",", names=True)
    left.plot(steps["step"], steps["loss"], color=colours[name], lw=1)
    accuracy = 100 * np.atleast_1d(history["validation_top1_accuracy"])
    right.plot(np.atleast_1d(history["epoch"]), accuracy, color=colours[name], marker="o", ms=4)
    right.text(np.atleast_1d(history["epoch"])[-1], accuracy[-1], f" {name}", color=colours[name], va="center")
left.set(title="Training loss, nats", xlabel="step")
right.set(title="Validation top-1 accuracy, %", xlabel="epoch")
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)

# %% [markdown]
# ## Attention, the matrix itself
#
# A row of an attention matrix says how much of each token goes into that token; it sums to 1. The row of the class token is a picture: how much the
# answer takes from each patch. Below it is shown head by head, block by block, for one dog. Set `MY_DOG` to a photograph of
# your own dog to see its attention.

# %%
MY_DOG = None  # "rex.jpg"

vit, resnet = (keras_dogs.load_classifier(runs[name].folder) for name in ("ViT", "ResNet"))
dog = np.asarray(dataset.test.read(0) if MY_DOG is None else keras.utils.load_img(MY_DOG))
attention = keras_dogs.attention_weights(vit, dog[None])
heads = attention[0].shape[1]
figure, axes = plt.subplots(
    len(attention), heads + 1, figsize=(1.5 * (heads + 1), 1.5 * len(attention)), layout="constrained", squeeze=False
)
for block, weights in enumerate(attention):
    axes[block, 0].imshow(dog)
    axes[block, 0].set_ylabel(f"block {block + 1}", fontsize=8)
    for head in range(heads):
        of_class_token = weights[0, head, 0, -side * side :].reshape(side, side)
        axes[block, head + 1].imshow(of_class_token, cmap="inferno", vmin=0)
        if block == 0:
            axes[0, head + 1].set_title(f"head {head + 1}", fontsize=8)
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])

# %%
figure, axis = plt.subplots(figsize=(3.6, 3.6), layout="constrained")
axis.imshow(attention[-1][0, 0], cmap="inferno", vmin=0)
axis.set(title="last block, head 1: the whole matrix", xlabel="taken from token", ylabel="goes into token")
print("each row sums to", attention[-1][0, 0].sum(axis=1).round(6)[:3], "...")

# %% [markdown]
# ## Where they looked
#
# Attention rollout multiplies these matrices through all blocks. Grad-CAM asks the last feature maps of the ResNet which places speak for its answer.
# They answer different questions, and neither proves what a model *used*.

# %%
figure, axes = plt.subplots(3, 5, figsize=(8.4, 5), layout="constrained")
shown = [place * len(dataset.test) // 5 + 7 for place in range(5)]
pictures = np.stack([np.asarray(dataset.test.read(index).resize((vit.canvas_size,) * 2)) for index in shown])
answers = {
    name: model.predict(pictures, verbose=0).argmax(axis=1) for name, model in {"ViT": vit, "ResNet": resnet}.items()
}
heat = {
    "ViT": keras_dogs.attention_rollout(vit, pictures),
    "ResNet": keras_dogs.grad_cam(resnet, pictures, answers["ResNet"]),
}
for column, index in enumerate(shown):
    axes[0, column].imshow(pictures[column])
    axes[0, column].set_title(breed(dataset.class_names[dataset.test.labels[index]]), fontsize=8)
    for row, name in enumerate(heat, 1):
        extent = (0, vit.canvas_size, vit.canvas_size, 0)
        axes[row, column].imshow(pictures[column].mean(axis=2), cmap="gray", extent=extent)
        axes[row, column].imshow(
            heat[name][column], cmap="inferno", alpha=0.6, interpolation="bilinear", extent=extent, vmin=0
        )
        axes[row, column].set_title(breed(dataset.class_names[answers[name][column]]), fontsize=8)
for axis, label in zip(axes[:, 0], ("picture", "ViT: rollout", "ResNet: Grad-CAM")):
    axis.set_ylabel(label, fontsize=9)
for axis in axes.flat:
    axis.set_xticks([])
    axis.set_yticks([])

# %% [markdown]
# ## Which is better?
#
# Two accuracies always differ. The question is whether they would differ again. McNemar's exact test looks at the pictures that only one of the two
# names correctly; the interval says how large the difference may be.

# %%
from keras_dogs.evaluation import statistics
from keras_dogs.evaluation.predictions import Predictions

predictions = {name: Predictions.load(run.folder) for name, run in runs.items()}
for name, run in runs.items():
    print(f"{name:<7} top-1 {run.record.test.top1_accuracy:.1%}, {run.record.timings.train_s:.0f} s of training")
found = statistics.compare(predictions["ResNet"], predictions["ViT"])
print(found.in_words("The ResNet", "the ViT"))

# %% [markdown]
# ## What you may conclude, and what not
#
# - **These two runs differ by chance, too.** Another seed gives another difference. `python -m keras_dogs.compare --pair embedded --seeds 0 1 2` trains
#   several, on every backend that is installed, and tests over pictures and seeds.
# - **It is a statement about these weights.** A ViT that was pretrained on more pictures, or a ResNet that saw the test pictures in ImageNet, changes
#   the answer. Stanford Dogs is a part of ImageNet.
# - **It is a statement about this budget.** Equal epochs are not equal time; `--budget time` and `--budget flops` ask the other questions.
# - **The backend changes the cost, and hardly the answer.** Run this notebook with another `KERAS_BACKEND`: the accuracies cannot be told apart, though
#   single pictures may differ.
