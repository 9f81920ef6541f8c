"""What Hugging Face's transformers call the weights of a ViT, DeiT, DINOv2 and ResNet, to read and to write.

The names are those of `transformers/models/{vit,deit,dinov2,resnet}/modeling_*.py`.
"""

from keras_dogs.models.weights import resnets
from keras_dogs.models.weights.transfer import Source
from keras_dogs.models.weights.transfer import batch_norm
from keras_dogs.models.weights.transfer import convolution
from keras_dogs.models.weights.transfer import linear
from keras_dogs.models.weights.transfer import norm
from keras_dogs.models.weights.transfer import zeros


def vit_sources(base: str, family: str, config: dict) -> dict[str, Source]:
    """Returns the sources of all weights of a ViT but those of positions and of the mask token.

    Args:
        base: str. What precedes the names of the backbone: `"vit."` and the like in a classifier.
        family: str. `"vit"`, `"deit"` or `"dinov2"`.
        config: dict. As in `config.json`.
    """
    sources = {
        **convolution("patch", f"{base}embeddings.patch_embeddings.projection"),
        "patch.bias": Source(f"{base}embeddings.patch_embeddings.projection.bias"),
        "class_token": Source(f"{base}embeddings.cls_token"),
        **norm("norm", f"{base}layernorm"),
    }
    if family == "deit":
        sources["distillation_token"] = Source(f"{base}embeddings.distillation_token")
    if config.get("num_register_tokens"):
        sources["register_tokens"] = Source(f"{base}embeddings.register_tokens")
    for number in range(config["num_hidden_layers"]):
        block = _dinov2_block if family == "dinov2" else _vit_block
        parts = block(f"{base}encoder.layer.{number}", config)
        sources |= {f"{number}.{name}": source for name, source in parts.items()}
    return sources


def _attention(layer: str, config: dict) -> dict[str, Source]:
    sources = {}
    for name in ("query", "key", "value"):
        sources |= linear(name, f"{layer}.attention.attention.{name}")
        if not config.get("qkv_bias", True):
            sources[f"{name}.bias"] = zeros(config["hidden_size"])
    return sources | linear("out", f"{layer}.attention.output.dense")


def _vit_block(layer: str, config: dict) -> dict[str, Source]:
    return {
        **norm("norm1", f"{layer}.layernorm_before"),
        **_attention(layer, config),
        **norm("norm2", f"{layer}.layernorm_after"),
        **linear("fc1", f"{layer}.intermediate.dense"),
        **linear("fc2", f"{layer}.output.dense"),
    }


def _dinov2_block(layer: str, config: dict) -> dict[str, Source]:
    first, second = ("weights_in", "weights_out") if config.get("use_swiglu_ffn") else ("fc1", "fc2")
    return {
        **norm("norm1", f"{layer}.norm1"),
        **_attention(layer, config),
        "scale1": Source(f"{layer}.layer_scale1.lambda1"),
        **norm("norm2", f"{layer}.norm2"),
        **linear("fc1", f"{layer}.mlp.{first}"),
        **linear("fc2", f"{layer}.mlp.{second}"),
        "scale2": Source(f"{layer}.layer_scale2.lambda1"),
    }


def resnet_sources(base: str, backbone) -> dict[str, Source]:
    """Returns the sources of all weights of a ResNet, whose shape `backbone` has; `base` as of a ViT."""
    stem = f"{base}embedder.embedder"
    sources = convolution("stem.conv", f"{stem}.convolution") | batch_norm("stem.norm", f"{stem}.normalization")
    for stage, block, has_shortcut in resnets.blocks_of(backbone):
        ours, theirs = f"{stage}.{block}", f"{base}encoder.stages.{stage}.layers.{block}"
        if has_shortcut:
            sources |= convolution(f"{ours}.shortcut", f"{theirs}.shortcut.convolution")
            sources |= batch_norm(f"{ours}.shortcut.norm", f"{theirs}.shortcut.normalization")
        for number in range(resnets.num_convolutions(backbone)):
            sources |= convolution(f"{ours}.conv{number + 1}", f"{theirs}.layer.{number}.convolution")
            sources |= batch_norm(f"{ours}.norm{number + 1}", f"{theirs}.layer.{number}.normalization")
    return sources
