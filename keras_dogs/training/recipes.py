"""The table of fine-tuning recipes: one row per published method.

A field that is `None` takes the preset's value (`keras_dogs.models.presets`); a flag of the same name overrides any
field.
"""

from pathlib import Path
from typing import NamedTuple

from keras_dogs.models import families
from keras_dogs.models import presets
from keras_dogs.runs import artifacts
from keras_dogs.runs import exports


class Recipe(NamedTuple):
    """A row of the table.

    Attributes:
        source: str. Where the recipe is from.
        expected: str. What its authors, or users of it, report.
        optimizer: str. `"adamw"`, or `"sgd"` with momentum 0.9.
        epochs: int. Passes over the training pictures.
        batch_size: int. Pictures an update of the weights.
        accumulate: int. Steps into which a batch is split, for what does not fit in memory.
        learning_rate: float. The peak: a linear rise from 0, then a cosine to 0, counted in updates.
        warmup_fraction: float. Share of the updates in which it rises.
        weight_decay: float. Decoupled, times the learning rate; not for biases, norms, tokens and positions.
        layer_decay: float. What the learning rate is multiplied by from each block to the one below it.
        global_clipnorm: float. Gradients are scaled down to this global norm; 0 for never.
        label_smoothing: float. Share of the target that is spread over all classes.
        augmentation: str. A key of `keras_dogs.layers.AUGMENTATIONS`.
        dropout: float. Before the head.
        drop_path: float. Stochastic depth of the last block; ViTs only, left out for a ResNet.
        ema: float. Momentum of the running mean of the weights that is scored and kept; 0 for none.
        freeze_batch_norm: bool. Keep statistics, scales and offsets of batch norms.
        linear_probe: bool. Train the head alone.
        probe_first: bool. Train the head alone first, on features that are computed once. That model is kept if no
            later epoch validates better.
        unfreeze_every: float. Epochs after which the next block from the top begins to learn; 0 for all at once.
        patience: int. Epochs without a better validation score after which training stops; 0 for never.
        load_weights: bool. `False` starts from random weights.
    """

    source: str
    expected: str
    optimizer: str = "adamw"
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    learning_rate: float | None = None
    warmup_fraction: float = 0.1
    weight_decay: float | None = None
    layer_decay: float = 1.0
    global_clipnorm: float = 1.0
    label_smoothing: float = 0.0
    augmentation: str | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    ema: float = 0.0
    freeze_batch_norm: bool = False
    linear_probe: bool = False
    probe_first: bool = False
    unfreeze_every: float = 0.0
    patience: int = 0
    load_weights: bool = True


# Expectations for Stanford Dogs at 224 pixels, test top-1; most presets saw its pictures with their labels before.
RECIPES: dict[str, Recipe] = {
    "adamw": Recipe(
        source="ours: AdamW at rates usual for the family (keras_dogs/models/presets.py)",
        expected="ViT-B/16 of ImageNet-21k 88.5 to 91.5 %, ResNet-50 of ImageNet-1k 84 to 87 % (others' runs)",
    ),
    "vit_paper": Recipe(
        source="An Image is Worth 16x16 Words, arXiv 2010.11929, B.1.1 and table 4; vit_jax/configs/common.py",
        expected="not for dogs: ViT-B/16 at 384 pixels (--image-size 384), CIFAR-100 89.2 % in 500 updates",
        optimizer="sgd",
        epochs=24,  # 500 updates of Stanford Dogs' 10,800 pictures, as the paper has for sets of this size
        batch_size=512,
        accumulate=8,
        learning_rate=0.01,  # the paper's grid: 0.001, 0.003, 0.01, 0.03, chosen on validation
        warmup_fraction=0.05,  # 500 of 10,000 steps
        weight_decay=0.0,
    ),
    "augreg": Recipe(
        source="How to train your ViT, arXiv 2106.10270; vit_jax/configs/augreg.py",
        expected="not for dogs: ViT-B/32 at 384 pixels (--image-size 384), Oxford Pets 93.8 % (big_vision)",
        optimizer="sgd",
        epochs=24,
        batch_size=512,
        accumulate=8,
        learning_rate=0.03,
        warmup_fraction=0.2,  # 100 of 500 steps
        weight_decay=0.0,
    ),
    "vit_adamw": Recipe(
        source="Masked Autoencoders, arXiv 2111.06377, table 9; BEiT, arXiv 2106.08254 (layer-wise decay)",
        expected="no figure for dogs from its authors; 88.5 to 91.5 % for ViT-B/16 of ImageNet-21k as with adamw",
        learning_rate=3e-4,
        epochs=20,
        batch_size=64,
        weight_decay=0.05,
        layer_decay=0.75,
        label_smoothing=0.1,
        drop_path=0.1,
    ),
    "resnet_finetune": Recipe(
        source="Do Better ImageNet Models Transfer Better?, arXiv 1805.08974 (SGD, rate from a grid)",
        expected="ResNet-50 of ImageNet-1k: 84 to 87 % (others' runs)",
        optimizer="sgd",
        epochs=20,
        batch_size=64,
        learning_rate=0.01,
        weight_decay=1e-4,
        label_smoothing=0.1,
    ),
    "linear_probe": Recipe(
        source="A Simple Framework for Contrastive Learning, arXiv 2002.05709, B.8; rates ours (models/presets.py)",
        expected="ResNet-50 of ImageNet-1k 80.8 % on a sample of 3,240 + 1,200 cropped pictures (benchmarks/results/)",
        optimizer="sgd",
        linear_probe=True,
    ),
    "probe_then_finetune": Recipe(
        source="Fine-Tuning can Distort Pretrained Features, arXiv 2202.10054 (LP-FT)",
        expected="ViT-B/16 93.8 %, ResNet-50 86.6 %, weights that saw the pictures (a student's runs)",
        probe_first=True,
    ),
    "scratch": Recipe(
        source="DeiT, arXiv 2012.12877, table 9 (AdamW, RandAugment, mix-up, drop-path), shorter",
        expected="ResNet-50 42 %, ViT-S/16 14 % (a student's runs); ViTs want far more pictures than dogs have",
        epochs=100,
        batch_size=64,
        learning_rate=5e-4,
        weight_decay=0.05,
        augmentation="strong",
        label_smoothing=0.1,
        drop_path=0.1,
        load_weights=False,
    ),
}
FIELDS = tuple(name for name in Recipe._fields if name not in ("source", "expected"))
_SIZES = ("epochs", "batch_size", "accumulate")
_MIXING = ("mixup", "cutmix", "erasing")
# A folder of at most so many training pictures is small: it gets this recipe where nobody names one
# (benchmarks/small_folders.py).
SMALL_FOLDER = 1000
FOR_SMALL_FOLDERS, THEIR_PATIENCE = "probe_then_finetune", 3


def choose(config) -> Recipe:
    """Returns the recipe that a `TrainConfig` names, with its flags; the preset's own fields stay `None`."""
    recipe = RECIPES[name_of(config)]
    given = {name: getattr(config, name) for name in FIELDS if getattr(config, name, None) is not None}
    if not config.linear_probe:  # a flag that is not given says nothing
        del given["linear_probe"]
    recipe = recipe._replace(**given)
    if config.drop_path is None and not families.family(likely_family(config.preset)).branch_ends:
        recipe = recipe._replace(drop_path=0.0)  # they have none; the flag is refused
    if recipe.augmentation is None:
        augmentation = presets.default_augmentation(config.preset, recipe.linear_probe)
        recipe = recipe._replace(augmentation=augmentation)
    return recipe


def name_of(config) -> str:
    """Returns the recipe's name: what `--recipe` says, else that of a linear probe or of a full fine-tuning."""
    return config.recipe or ("linear_probe" if config.linear_probe else "adamw")


def is_open(config) -> bool:
    """Returns whether a `TrainConfig` sets neither a recipe nor any field of one, except those in `_SIZES`."""
    if config.linear_probe or config.remat:
        return False
    parts = {"recipe", *FIELDS, *_MIXING} - {"linear_probe", *_SIZES}
    return all(getattr(config, name, None) is None for name in parts)


def complete(recipe: Recipe, preset: str, family: str) -> Recipe:
    """Fills the fields of a recipe that are `None` with the settings of the preset."""
    settings = presets.default_settings(preset, family, recipe.linear_probe)
    own = {name: value for name, value in settings._asdict().items() if getattr(recipe, name) is None}
    return recipe._replace(**own)


def likely_family(preset: str) -> str:
    """Returns the family of a preset before its weights are loaded: that of a run by its record, else by the name.

    Of a path, folders above say nothing: `resnet_vs_vit/B_16.npz` is a ViT. `"vit"` where the name does not tell.
    """
    if preset in presets.PRESETS:
        return presets.PRESETS[preset].family
    path = Path(preset)
    if record := presets.record_of(str(path.parents[1]) if path.parent.name == artifacts.CHECKPOINTS else preset):
        return record.family
    if exports.is_exported(path):
        return exports.read(path / exports.FILE)["family"]
    return families.guess(presets.short_name(str(path.parent) if path.name in _SAY_NOTHING else preset)).name


_SAY_NOTHING = ("model.safetensors", "pytorch_model.bin", "model.weights.h5", "model.keras")  # of many models
