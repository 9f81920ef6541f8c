"""KerasHub's ResNet backbones, v1.5 and v2: all their weights under names of ours.

The names: `stem.conv`, `stem.norm`, then for each block `0.0.shortcut`, `0.0.conv1`, `0.0.norm1` and so on, and `norm`
at the end of a v2; `.kernel` follows a convolution, `.gamma`, `.beta`, `.mean` and `.variance` a norm. In v1 `norm1`
follows `conv1`; in v2 it precedes it, and the shortcut has no norm.
"""

from typing import NamedTuple

import keras
import keras_hub

TORCH_EPSILON = 1e-5  # of PyTorch's batch norms, and of KerasHub's ResNet


class Shape(NamedTuple):
    """The attributes of a ResNet backbone that `blocks_of` and `num_convolutions` read.

    Attributes:
        stackwise_num_blocks: tuple of int. Of each stage.
        block_type: str. `"basic_block"` or `"bottleneck_block"`.
    """

    stackwise_num_blocks: tuple[int, ...]
    block_type: str


def build(
    blocks: list[int], is_bottleneck: bool, is_v2: bool, dtype, first_stride: int = 1, filters=(64, 128, 256, 512)
) -> keras.Model:
    """Builds a backbone with random weights: `blocks` of each stage, of two convolutions or three (bottleneck)."""
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=list(filters),
        stackwise_num_blocks=blocks,
        stackwise_num_strides=[first_stride, *[2] * (len(blocks) - 1)],
        block_type="bottleneck_block" if is_bottleneck else "basic_block",
        use_pre_activation=is_v2,
        image_shape=(None, None, 3),
        dtype=dtype,
    )


def weights(backbone: keras.Model) -> dict:
    """Returns all weights of a backbone, under the names above."""
    is_v2 = backbone.use_pre_activation
    found = _convolution("stem.conv", backbone, "conv1_conv")
    if not is_v2:
        found |= _norm("stem.norm", backbone, "conv1_bn")
    for stage, block, has_shortcut in blocks_of(backbone):
        ours, theirs = f"{stage}.{block}", f"stack{stage}_block{block}"
        if has_shortcut:
            found |= _convolution(f"{ours}.shortcut", backbone, f"{theirs}_0_conv")
            if not is_v2:
                found |= _norm(f"{ours}.shortcut.norm", backbone, f"{theirs}_0_bn")
        norms = ["pre_activation_bn", "1_bn", "2_bn"] if is_v2 else ["1_bn", "2_bn", "3_bn"]
        for number in range(1, num_convolutions(backbone) + 1):
            found |= _convolution(f"{ours}.conv{number}", backbone, f"{theirs}_{number}_conv")
            found |= _norm(f"{ours}.norm{number}", backbone, f"{theirs}_{norms[number - 1]}")
    return found | (_norm("norm", backbone, "post_bn") if is_v2 else {})


def blocks_of(backbone: keras.Model | Shape):
    """Yields `(stage, block, has_shortcut)`: whether the block's input goes through a convolution to be added."""
    for stage, count in enumerate(backbone.stackwise_num_blocks):
        for block in range(count):
            yield stage, block, block == 0 and (backbone.block_type == "bottleneck_block" or stage > 0)


def num_convolutions(backbone: keras.Model | Shape) -> int:
    """Returns the number of convolutions in a block: 3 in a bottleneck, else 2."""
    return 3 if backbone.block_type == "bottleneck_block" else 2


def _convolution(name, backbone, layer):
    return {f"{name}.kernel": backbone.get_layer(layer).kernel}


def _norm(name, backbone, layer):
    layer = backbone.get_layer(layer)
    return {
        f"{name}.gamma": layer.gamma,
        f"{name}.beta": layer.beta,
        f"{name}.mean": layer.moving_mean,
        f"{name}.variance": layer.moving_variance,
    }
