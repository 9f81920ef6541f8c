"""The presets that are known by name: family, architecture, resolution, input conversion and tuned settings.

A row is enough to build the architecture with no network (`load_weights=False`); `source` says where weights come from.
Architectures follow "An Image is Worth 16x16 Words" (arXiv 2010.11929, table 1), "How to train your ViT" (arXiv
2106.10270, table 2, for Ti and S), "Deep Residual Learning" (arXiv 1512.03385, table 1), "Identity Mappings" (arXiv
1603.05027, the v2 blocks) and "Bag of Tricks" (arXiv 1812.01187, the vd stem and shortcuts).
"""

import difflib
import re
from pathlib import Path
from typing import NamedTuple

from keras_dogs.errors import UserError
from keras_dogs.models import families
from keras_dogs.models.families import Settings

EMBEDDED_FOLDER = Path(__file__).parent / "weights" / "embedded"

# Pixels in [0, 255] -> what the backbone was trained on: `pixels * scale + offset`, a channel.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONVERSIONS = {
    "inception": ((1 / 127.5,) * 3, (-1.0,) * 3),
    "imagenet": (
        tuple(1 / (255 * std) for std in _IMAGENET_STD),
        tuple(-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD)),
    ),
}

# Chosen on the validation split of drawn_dogs.
NANO_FINE_TUNE_SETTINGS = {
    "vit_nano": Settings(epochs=20, batch_size=32, learning_rate=1e-3, weight_decay=0.05),
    "resnet_nano": Settings(epochs=10, batch_size=32, learning_rate=1e-3, weight_decay=0.05),
}
# The head alone, by SGD on features that are centred and brought to one mean norm. Chosen on the validation part of
# 3,600 cropped pictures of Stanford Dogs with a ResNet-50, by the loss: 0.79 nats; AdamW at its best rate 0.90.
LINEAR_PROBE_SETTINGS = Settings(epochs=40, batch_size=128, learning_rate=0.01, weight_decay=0.0)


class Preset(NamedTuple):
    """A row of the table.

    Attributes:
        family: str. A key of `families.FAMILIES`.
        image_size: int. The side of the square that the weights were trained on, pixels.
        architecture: dict. Arguments of the KerasHub backbone class, less `image_shape`.
        source: str or `None`. `"keras_hub"`, `"embedded"`, or `None` for an architecture without published weights.
    """

    family: str
    image_size: int
    architecture: dict
    source: str | None

    @property
    def conversion(self) -> str:
        """The name of the row of `CONVERSIONS` that fits the weights."""
        return families.family(self.family).conversion


def _vit(patch_size, num_layers, num_heads, hidden_dim, mlp_dim):
    return dict(
        patch_size=patch_size, num_layers=num_layers, num_heads=num_heads, hidden_dim=hidden_dim, mlp_dim=mlp_dim
    )


def _deit(num_heads, hidden_dim):
    return dict(
        patch_size=16, num_layers=12, num_heads=num_heads, hidden_dim=hidden_dim, intermediate_dim=4 * hidden_dim
    )


def _resnet(blocks, block_type, use_pre_activation=False):
    vd = block_type.endswith("_vd")
    return dict(
        input_conv_filters=[32, 32, 64] if vd else [64],
        input_conv_kernel_sizes=[3, 3, 3] if vd else [7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=blocks,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block_type,
        use_pre_activation=use_pre_activation,
    )


_VITS = {
    #          layers heads hidden  mlp
    "tiny": (12, 3, 192, 768),
    "small": (12, 6, 384, 1536),
    "base": (12, 12, 768, 3072),
    "large": (24, 16, 1024, 4096),
    "huge": (32, 16, 1280, 5120),
}
_RESNET_BLOCKS = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
    200: [3, 12, 48, 3],
}

# What KerasHub 0.32 publishes (name after the family's prefix); everything else below is an architecture only.
_KERAS_HUB_VITS = (
    "base_patch16_224_imagenet base_patch16_384_imagenet base_patch32_384_imagenet large_patch16_224_imagenet "
    "large_patch16_384_imagenet large_patch32_384_imagenet base_patch16_224_imagenet21k base_patch32_224_imagenet21k "
    "large_patch16_224_imagenet21k large_patch32_224_imagenet21k huge_patch14_224_imagenet21k"
).split()
_KERAS_HUB_RESNETS = (
    "resnet_18 resnet_50 resnet_101 resnet_152 resnet_v2_50 resnet_v2_101 resnet_vd_18 resnet_vd_34 resnet_vd_50 "
    "resnet_vd_50_ssld resnet_vd_50_ssld_v2 resnet_vd_50_ssld_v2_fix resnet_vd_101 resnet_vd_101_ssld resnet_vd_152 "
    "resnet_vd_200"
).split()
_ARCHITECTURE_ONLY_VITS = (
    "tiny_patch16_224 tiny_patch16_384 small_patch16_224 small_patch16_384 small_patch32_224 small_patch32_384 "
    "base_patch16_224 base_patch16_384 base_patch32_224 base_patch32_384 large_patch16_224 large_patch16_384 "
    "large_patch32_224 large_patch32_384 huge_patch14_224"
).split()
_ARCHITECTURE_ONLY_RESNETS = (
    "resnet_18 resnet_34 resnet_50 resnet_101 resnet_152 resnet_v2_18 resnet_v2_34 resnet_v2_50 resnet_v2_101 "
    "resnet_v2_152"
).split()
_DEITS = {"tiny": (3, 192, (224,)), "small": (6, 384, (224,)), "base": (12, 768, (224, 384))}


def _vit_row(name: str, source: str | None) -> Preset:
    size, patch, image_size = name.split("_")[:3]
    return Preset("vit", int(image_size), _vit(int(patch.removeprefix("patch")), *_VITS[size]), source)


def _resnet_row(name: str, source: str | None) -> Preset:
    depth = next(int(part) for part in name.split("_") if part.isdigit())
    block_type = "basic_block" if depth < 50 else "bottleneck_block"
    block_type += "_vd" if "_vd_" in name else ""
    return Preset(
        "resnet", 224, _resnet(_RESNET_BLOCKS[depth], block_type, "_v2_" in name + "_" and "vd" not in name), source
    )


PRESETS: dict[str, Preset] = {
    "vit_nano": Preset("vit", 64, _vit(8, 4, 4, 80, 288), "embedded"),
    "resnet_nano": Preset(
        "resnet",
        64,
        _resnet([1, 1, 2], "basic_block")
        | dict(input_conv_kernel_sizes=[3], stackwise_num_filters=[64, 64, 64], stackwise_num_strides=[1, 2, 2]),
        "embedded",
    ),
    **{f"vit_{name}": _vit_row(name, "keras_hub") for name in _KERAS_HUB_VITS},
    **{f"vit_{name}": _vit_row(name, None) for name in _ARCHITECTURE_ONLY_VITS},
    **{
        f"deit_{size}_distilled_patch16_{image_size}_imagenet": Preset(
            "deit", image_size, _deit(num_heads, hidden_dim), "keras_hub"
        )
        for size, (num_heads, hidden_dim, image_sizes) in _DEITS.items()
        for image_size in image_sizes
    },
    **{f"{name}_imagenet": _resnet_row(name, "keras_hub") for name in _KERAS_HUB_RESNETS},
    **{name: _resnet_row(name, None) for name in _ARCHITECTURE_ONLY_RESNETS},
}


class Published(NamedTuple):
    """What is known of published weights.

    Attributes:
        pretraining: str. The pictures and labels that they have seen.
        licence: str.
        top1_accuracy: float or `None`. On ImageNet's 50,000 validation pictures, %, as the source measured it.
        source: str. Where the figure is from.
    """

    pretraining: str
    licence: str = "Apache-2.0"
    top1_accuracy: float | None = None
    source: str = ""


# huggingface/pytorch-image-models, results/results-imagenet.csv at commit 0173a139: weights that KerasHub converted.
_TIMM = "timm results-imagenet.csv, {}"
_IN1K = "ImageNet-1k (1.28 M pictures, 1,000 labels)"
_IN21K = "ImageNet-21k (14 M pictures, 21,843 labels)"
_DISTILLED = f"{_IN1K}, distilled from a RegNetY-16GF"
PUBLISHED: dict[str, Published] = {
    "vit_nano": Published("24 breeds of drawn dogs and their traits (scripts/train_nano_presets.py)"),
    "resnet_nano": Published("24 breeds of drawn dogs and their traits (scripts/train_nano_presets.py)"),
    **{f"vit_{name}": Published(_IN21K) for name in _KERAS_HUB_VITS if name.endswith("21k")},
    **{f"vit_{name}": Published(f"{_IN21K}, then {_IN1K}") for name in _KERAS_HUB_VITS if not name.endswith("21k")},
    **{
        name: Published(f"{_IN21K}, then {_IN1K}", top1_accuracy=accuracy, source=_TIMM.format(timm_name))
        for name, accuracy, timm_name in (
            ("vit_base_patch16_224_imagenet", 81.786, "vit_base_patch16_224.orig_in21k_ft_in1k"),
            ("vit_base_patch16_384_imagenet", 84.200, "vit_base_patch16_384.orig_in21k_ft_in1k"),
            ("vit_large_patch32_384_imagenet", 81.510, "vit_large_patch32_384.orig_in21k_ft_in1k"),
        )
    },
    **{
        f"deit_{size}_distilled_patch16_{image_size}_imagenet": Published(
            _DISTILLED,
            top1_accuracy=accuracy,
            source=_TIMM.format(f"deit_{size}_distilled_patch16_{image_size}.fb_in1k"),
        )
        for size, image_size, accuracy in (
            ("tiny", 224, 74.500),
            ("small", 224, 81.218),
            ("base", 224, 83.386),
            ("base", 384, 85.426),
        )
    },
    **{f"{name}_imagenet": Published(_IN1K) for name in _KERAS_HUB_RESNETS},
    **{
        f"{name}_imagenet": Published(_IN1K, top1_accuracy=accuracy, source=_TIMM.format(f"{timm_name}, at 288"))
        for name, accuracy, timm_name in (
            ("resnet_18", 73.158, "resnet18.a1_in1k"),
            ("resnet_50", 81.214, "resnet50.a1_in1k"),
            ("resnet_101", 82.322, "resnet101.a1_in1k"),
            ("resnet_152", 82.732, "resnet152.a1_in1k"),
            ("resnet_v2_50", 81.398, "resnetv2_50.a1h_in1k"),
            ("resnet_v2_101", 83.002, "resnetv2_101.a1h_in1k"),
        )
    },
}


def default_settings(preset: str, family: str, linear_probe: bool) -> Settings:
    """Returns the settings that a fine-tuning of `preset` starts from."""
    if linear_probe:
        return LINEAR_PROBE_SETTINGS
    return NANO_FINE_TUNE_SETTINGS.get(preset, families.family(family).settings)


def pretraining_of(preset: str) -> str:
    """Returns the pictures and labels that a preset's weights have seen, in words.

    Of a run of ours its record says it; of other files and addresses their names.
    """
    parts = [part for part in preset.split("/") if not part.isdigit()]  # kaggle://keras/vit/keras/NAME/VERSION
    if published := PUBLISHED.get(preset) or (preset.startswith("kaggle://") and PUBLISHED.get(parts[-1])):
        return published.pretraining
    if record := record_of(preset):
        return f"{record.pretraining}; then {record.dataset.name} ({record.dataset.num_train:,} pictures)"
    if preset.startswith("applications:"):
        return f"{_IN1K}, by the name of the preset"
    is_address = preset.startswith(("gs://", "https://"))  # of a file, in folders that its publisher has named
    name = preset.lower() if is_address else re.split(r"[/\\]", preset.lower())[-1]
    stages = [words for mark, words in _BY_NAME if mark.search(name)]
    return f"{', then '.join(stages)}, by the name of the file" if stages else "not known to keras_dogs"


# What names of files say of pretraining, first stage first: timm's, google-research's and others'.
_BY_NAME = (
    (re.compile(r"in21k|in22k|i21k|imagenet-?2[12]k"), _IN21K),
    (re.compile(r"in12k"), "ImageNet-12k (12 M pictures, 11,821 labels)"),
    (re.compile(r"in1k|i1k|imagenet-?1k|imagenet2012|imagenet(?![-_]?\d)"), _IN1K),
)


def record_of(preset: str):
    """Returns the record of the finished run that a preset names, or `None`."""
    from keras_dogs.runs import artifacts
    from keras_dogs.runs.records import RunRecord

    model = artifacts.model_of(preset)
    record = model and model.with_name(artifacts.RECORD)
    return RunRecord.load(record) if record and artifacts.is_finished(record.parent) else None


def short_name(preset: str) -> str:
    """Shortens a preset to a name that is fit for a folder: the last part of its address that is not a version.

    `"kaggle://keras/vit/keras/vit_base/2"` gives `"vit_base"`, `"applications:resnet50:weights.h5"` gives `"resnet50"`.
    """
    if preset.startswith("applications:"):
        preset = preset.split(":")[1]
    parts = re.split(r"[/\\]", preset.partition("://")[2] or preset)
    name = next((part for part in reversed(parts) if part and not part.isdigit()), "preset")
    return re.sub(r"[^\w.=,+-]", "_", name.removesuffix(".npz").removesuffix(".keras"))[:80]


class DefaultPreset(str):
    """The name of a preset that is a default: it tells a default apart from the same name given by the user."""


DEFAULT = DefaultPreset("resnet_nano")
# The default for photographs is the first of these that is in the cache already.
PHOTOGRAPH_PRESETS = (
    "resnet_50_imagenet",
    "vit_base_patch16_224_imagenet21k",
    "vit_base_patch16_224_imagenet",
    "resnet_18_imagenet",
)
# The preset suggested for photographs: its features alone gave 80.8 % on the sample of Stanford Dogs.
SUGGESTED_FOR_PHOTOGRAPHS = "resnet_50_imagenet"


def knows_drawn_dogs_alone(preset: str) -> bool:
    """Returns whether the weights of a preset have seen drawn dogs and no photograph."""
    return preset in NANO_FINE_TUNE_SETTINGS


def default_augmentation(preset: str, linear_probe: bool) -> str:
    """Returns the augmentation policy that a fine-tuning of `preset` starts from."""
    if linear_probe:
        return "none"
    # A drawn breed is told by small parts at the edge of the dog, which a tighter crop cuts off.
    return "light" if preset in NANO_FINE_TUNE_SETTINGS else "standard"


# Suffixes of weights files; `.tar` is for timm's `.pth.tar`.
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".tar")
# A preset that begins with one of these is an address, looked up when it is loaded; any other is a name or a path.
_ELSEWHERE = ("kaggle://", "hf://", "gs://", "https://")
ADDRESSES = (*_ELSEWHERE, "applications:")  # what no path begins with


def check(preset: str, needs_weights: bool = True) -> None:
    """Refuses a preset that cannot be there, as far as that shows without loading it.

    Args:
        preset: str. What `--preset` takes.
        needs_weights: bool. Whether an architecture without published weights is refused.

    Raises:
        UserError: it is unknown, or a file of it is missing.
    """
    if preset in PRESETS:
        if needs_weights and PRESETS[preset].source is None:
            raise UserError(
                f"--preset {preset}: an architecture without published weights (--recipe scratch trains it)"
            )
    elif preset.startswith("applications:"):
        file = preset.removeprefix("applications:").partition(":")[2]
        if file and not Path(file).is_file():
            raise UserError(f"--preset {preset}: no such weights file: {file}")
    elif not preset.startswith(_ELSEWHERE):
        path = Path(preset)
        if path.is_dir() and not any((path / name).is_file() for name in ("config.json", "model.keras")):
            raise UserError(f"--preset {preset}: no preset in this folder; looked for config.json and model.keras")
        if path.is_file() and path.suffix not in (".keras", *WEIGHT_SUFFIXES):
            raise unknown_kind(preset)
        if not (path.is_dir() or path.is_file()):
            raise unknown_preset(preset)


def unknown_kind(preset: str) -> UserError:
    """Returns the error for a file that is neither a model of ours nor weights."""
    return UserError(
        f"--preset {preset}: a file of an unknown kind; known are .keras and {', '.join(WEIGHT_SUFFIXES)}; or give its "
        "folder"
    )


def unknown_preset(preset: str) -> UserError:
    """Returns the error for a name that is neither in the table nor a place on disk; near names are suggested."""
    with_weights = [name for name, row in PRESETS.items() if row.source]  # the others want --recipe scratch
    near = difflib.get_close_matches(preset, with_weights, n=3, cutoff=0.5)
    if any(mark in preset for mark in ("/", "\\")) or preset.startswith("."):
        return UserError(f"--preset {preset}: no such folder or file")
    suggestion = f"did you mean {' or '.join(near)}?" if near else "python -m keras_dogs.describe lists the names"
    return UserError(f"--preset {preset}: unknown preset; {suggestion} (or give a local preset folder)")
