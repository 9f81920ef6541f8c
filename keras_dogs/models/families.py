"""The table of families: one row with everything that the rest asks about a family of backbones.

A family that is not here is an error that names this table, never a silent default.
"""

from typing import NamedTuple

from keras_dogs.errors import UserError

VIT, RESNET = "vit", "resnet"  # the kinds, by the builder that takes them


class Settings(NamedTuple):
    """Settings of a fine-tuning that a flag of the same name overrides.

    Attributes:
        epochs: int. Passes over the training pictures.
        batch_size: int. Pictures a step.
        learning_rate: float. The peak, after warm-up.
        weight_decay: float. AdamW's decoupled decay.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float


class Family(NamedTuple):
    """A row of the table.

    Attributes:
        name: str. What records and `Loaded` call it.
        kind: str. `VIT` or `RESNET`: which builder takes it.
        classes: tuple of str. KerasHub's class of backbone first; other names by which a backbone is recognised.
        conversion: str. The key of `presets.CONVERSIONS` for weights that bring no image converter.
        pooling: str. A key of `layers.TokenPooling`, or `"average"` over places.
        num_prefix: int. Tokens before the patches, registers left out.
        num_positions_before: int. How many of them have positions.
        resizing: str. What another image size changes: `"positions"`, the table of positions is resampled by us;
            `"backbone"`, the backbone does it itself; `"nothing"`, there is no such table.
        usual_size: int or `None`. Pixels a side, where that is not what the weights were trained on.
        block: str or `None`. KerasHub's class of a block with residual branches.
        branch_ends: tuple of str. The layers with which its branches end; empty where drop-path is not known.
        last_block_alone: bool. Whether the last block can be computed for the class token alone.
        path_patterns: tuple of (regular expression, int). How weight paths number the blocks, and what to add to that
            number so that the first block is 1.
        explanation: str. `"attention rollout"`, `"Grad-CAM"`, or `"none"`.
        settings: `Settings`. Starting points for AdamW, in the range that published fine-tunings use.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    conversion: str
    pooling: str
    num_prefix: int
    num_positions_before: int
    resizing: str
    usual_size: int | None
    block: str | None
    branch_ends: tuple[str, ...]
    last_block_alone: bool
    path_patterns: tuple[tuple[str, int], ...]
    explanation: str
    settings: Settings


_VIT = Family(
    name="vit",
    kind=VIT,
    classes=("ViTBackbone",),
    conversion="inception",
    pooling="token",
    num_prefix=1,
    num_positions_before=1,
    resizing="positions",
    usual_size=None,
    block="ViTEncoderBlock",
    branch_ends=("dropout", "mlp"),
    last_block_alone=True,
    path_patterns=((r"transformer_block_(\d+)/", 0),),
    explanation="attention rollout",
    settings=Settings(epochs=10, batch_size=32, learning_rate=3e-5, weight_decay=0.05),
)
_ROWS = (
    _VIT,
    _VIT._replace(
        name="deit",
        classes=("DeiTBackbone",),
        conversion="imagenet",
        num_prefix=2,
        num_positions_before=2,
        block="DeiTEncoderBlock",
        branch_ends=("mha", "output_layer"),
        last_block_alone=False,
    ),
    _VIT._replace(
        name="dinov2",
        classes=("DINOV2Backbone",),
        conversion="imagenet",
        resizing="backbone",
        usual_size=224,  # they were trained at larger sizes and are used at any, as a rule at 224
        block="DINOV2Layer",
        branch_ends=("layer_scale1", "layer_scale2"),
        last_block_alone=False,
        path_patterns=((r"layers?[._](\d+)/", 1),),
        settings=Settings(epochs=10, batch_size=32, learning_rate=2e-5, weight_decay=0.05),
    ),
    _VIT._replace(
        name="dinov3",
        classes=("DINOV3Backbone",),
        conversion="imagenet",
        num_positions_before=0,
        resizing="nothing",  # positions are rotations of queries and keys
        usual_size=224,
        block=None,
        branch_ends=(),
        last_block_alone=False,
        path_patterns=((r"layers?[._](\d+)/", 1),),
        settings=Settings(epochs=10, batch_size=32, learning_rate=2e-5, weight_decay=0.05),
    ),
    # The vision tower of SigLIP (arXiv 2303.15343), whose head pools by attention.
    _VIT._replace(
        name="siglip",
        classes=("SigLIPVisionEncoder", "SigLIPBackbone"),
        pooling="own",
        num_prefix=0,
        num_positions_before=0,
        block="SigLIPEncoderLayer",
        branch_ends=("self_attn", "mlp"),
        last_block_alone=False,
        path_patterns=((r"encoder_block_(\d+)/", 1),),
        explanation="none",
        settings=Settings(epochs=10, batch_size=32, learning_rate=2e-5, weight_decay=0.05),
    ),
    Family(
        name="resnet",
        kind=RESNET,
        classes=("ResNetBackbone", "resnet50", "resnet101", "resnet152"),  # those of keras.applications by their names
        conversion="imagenet",
        pooling="average",
        num_prefix=0,
        num_positions_before=0,
        resizing="nothing",
        usual_size=None,
        block=None,
        branch_ends=(),
        last_block_alone=False,
        path_patterns=((r"stack(\d+)_", 1), (r"conv([2-5])_block", -1)),
        explanation="Grad-CAM",
        settings=Settings(epochs=15, batch_size=32, learning_rate=2e-4, weight_decay=0.05),
    ),
)
FAMILIES = {row.name: row for row in _ROWS}
VIT_FAMILIES = tuple(row.name for row in _ROWS if row.kind == VIT)
BLOCKS_FOR_ONE_TOKEN = tuple(row.block for row in _ROWS if row.last_block_alone)
DROP_PATH_FAMILIES = tuple(row.name for row in _ROWS if row.branch_ends)


def family(name: str) -> Family:
    """Returns the row of a family.

    Raises:
        UserError: there is none.
    """
    if name not in FAMILIES:
        raise UserError(f"family {name!r}: not in the table of families (keras_dogs/models/families.py)")
    return FAMILIES[name]


def of_class(name: str) -> Family | None:
    """Returns the family of one of KerasHub's classes of backbones, by its name; `None` where it is of none."""
    return next((row for row in _ROWS if name in row.classes), None)


def of_backbone(backbone) -> Family:
    """Returns the family of a backbone, by its class, a class that it comes from, or its own name.

    Args:
        backbone: `keras.Model`.

    Raises:
        UserError: it is of none.
    """
    names = [each.__name__ for each in type(backbone).__mro__] + [backbone.name]
    found = next(filter(None, map(of_class, names)), None)
    if found is None:
        raise UserError(
            f"backbone {backbone.name} ({type(backbone).__name__}): of no family in the table "
            "(keras_dogs/models/families.py)"
        )
    return found


def guess(preset: str) -> Family:
    """Guesses a preset's family from its name, before its weights are loaded; ViT where the name contains none."""
    lower = preset.lower()
    by_length = sorted(FAMILIES, key=len, reverse=True)  # `deit` and `dinov2` before `vit`
    return FAMILIES[next((name for name in by_length if name in lower), "vit")]
