"""What timm calls the weights of a ViT, DeiT, DINOv2 and ResNet (torchvision the same of a ResNet), to read and write.

The names are those of `timm/models/{vision_transformer,deit,resnet,resnetv2}.py`.
"""

import numpy as np

from keras_dogs.models.weights import resnets
from keras_dogs.models.weights.transfer import Source
from keras_dogs.models.weights.transfer import batch_norm
from keras_dogs.models.weights.transfer import convolution
from keras_dogs.models.weights.transfer import linear
from keras_dogs.models.weights.transfer import norm
from keras_dogs.models.weights.transfer import to_matrix
from keras_dogs.models.weights.transfer import zeros


def vit_sources(tensors, family: str, backbone, num_prefix: int) -> dict[str, Source]:
    """Returns the sources of all weights of a ViT but those of positions.

    Args:
        tensors: container of str. What tells apart the variants: `"fc_norm.weight"`, `"blocks.0.attn.qkv.bias"`.
        family: str. `"vit"`, `"deit"` or `"dinov2"`.
        backbone: `keras.Model`.
        num_prefix: int. Tokens before the patches.
    """
    sources = {
        **convolution("patch", "patch_embed.proj"),
        "patch.bias": Source("patch_embed.proj.bias"),
        **norm("norm", "norm"),
    }
    if "fc_norm.weight" in tensors:  # there is no norm before the pooling
        sources["norm.gamma"], sources["norm.beta"] = (_constant(value, backbone.hidden_dim) for value in (1.0, 0.0))
    if num_prefix:
        sources["class_token"] = Source("cls_token")
    if family == "deit":
        sources["distillation_token"] = Source("dist_token")
    for number in range(backbone.num_layers):
        block = f"blocks.{number}"
        parts = _vit_block(tensors, block, backbone.hidden_dim)
        if family == "dinov2":
            parts |= {"scale1": Source(f"{block}.ls1.gamma"), "scale2": Source(f"{block}.ls2.gamma")}
        sources |= {f"{number}.{name}": source for name, source in parts.items()}
    return sources


def _constant(value: float, size: int) -> Source:
    return Source("", lambda _: value + zeros(size).change(None))


def _vit_block(tensors, block: str, width: int) -> dict[str, Source]:
    fused = f"{block}.attn.qkv"
    sources = {
        **norm("norm1", f"{block}.norm1"),
        **linear("out", f"{block}.attn.proj"),
        **norm("norm2", f"{block}.norm2"),
        **linear("fc1", f"{block}.mlp.fc1"),
        **linear("fc2", f"{block}.mlp.fc2"),
    }
    has_bias = f"{fused}.bias" in tensors
    for third, name in enumerate(("query", "key", "value")):
        rows = slice(third * width, (third + 1) * width)
        sources[f"{name}.kernel"] = Source(f"{fused}.weight", lambda matrix, rows=rows: matrix[rows].T, to_matrix)
        bias = Source(f"{fused}.bias", lambda vector, rows=rows: vector[rows], np.ravel)
        sources[f"{name}.bias"] = bias if has_bias else zeros(width)
    return sources


def resnet_sources(backbone) -> dict[str, Source]:
    """Returns the sources of all weights of a ResNet v1.5, whose shape `backbone` has."""
    sources = convolution("stem.conv", "conv1") | batch_norm("stem.norm", "bn1")
    for stage, block, has_shortcut in resnets.blocks_of(backbone):
        ours, theirs = f"{stage}.{block}", f"layer{stage + 1}.{block}"
        if has_shortcut:
            sources |= convolution(f"{ours}.shortcut", f"{theirs}.downsample.0")
            sources |= batch_norm(f"{ours}.shortcut.norm", f"{theirs}.downsample.1")
        for number in range(1, resnets.num_convolutions(backbone) + 1):
            sources |= convolution(f"{ours}.conv{number}", f"{theirs}.conv{number}")
            sources |= batch_norm(f"{ours}.norm{number}", f"{theirs}.bn{number}")
    return sources


def resnet_v2_sources(backbone) -> dict[str, Source]:
    """Returns the sources of all weights of a ResNet v2."""
    sources = convolution("stem.conv", "stem.conv") | batch_norm("norm", "norm")
    for stage, block, has_shortcut in resnets.blocks_of(backbone):
        ours, theirs = f"{stage}.{block}", f"stages.{stage}.blocks.{block}"
        if has_shortcut:
            sources |= convolution(f"{ours}.shortcut", f"{theirs}.downsample.conv")
        for number in range(1, resnets.num_convolutions(backbone) + 1):
            sources |= convolution(f"{ours}.conv{number}", f"{theirs}.conv{number}")
            sources |= batch_norm(f"{ours}.norm{number}", f"{theirs}.norm{number}")
    return sources
