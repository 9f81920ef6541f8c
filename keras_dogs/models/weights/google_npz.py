"""`.npz` checkpoints of google-research: vision_transformer (ViT, AugReg, SAM) and big_vision, a file or an address.

The layouts are those of `vit_jax/models_vit.py` and `big_vision/models/vit.py`. Both compute GELU by its tanh
approximation, Flax's default, so the backbone here does too.
"""

from pathlib import Path

import numpy as np

from keras_dogs.models.presets import CONVERSIONS
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.checkpoint import Checkpoint
from keras_dogs.models.weights.checkpoint import open_checkpoint
from keras_dogs.models.weights.loaded import Head
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.models.weights.transfer import Source
from keras_dogs.models.weights.transfer import transfer

# Names of a block's parts, vision_transformer's first: attention, MLP, second norm.
_BLOCKS = (
    ("MultiHeadDotProductAttention_1", "MlpBlock_3", "LayerNorm_2"),
    ("MultiHeadDotProductAttention_0", "MlpBlock_0", "LayerNorm_1"),
)
_PREFIXES = ("", "opt/target/", "params/", "params/img/", "img/")
_POSITIONS = ("Transformer/posembed_input/pos_embedding", "pos_embedding")


def load(wanted: Wanted, file: Path) -> Loaded:
    """Loads a file."""
    if not wanted.load_weights:
        raise wanted.error("load_weights=False needs a name of the table of presets; this is a file of weights")
    with open_checkpoint(wanted.preset, file) as checkpoint:
        return _load(wanted, checkpoint)


def _load(wanted: Wanted, checkpoint: Checkpoint) -> Loaded:
    prefix = _prefix_of(checkpoint)
    patch, _, _, width = checkpoint.shapes[f"{prefix}embedding/kernel"]
    layers = f"{prefix}Transformer/encoderblock_"
    depth = sum(name.startswith(layers) and name.endswith("/LayerNorm_0/scale") for name in checkpoint.shapes)
    names = next((names for names in _BLOCKS if f"{layers}0/{names[0]}/query/kernel" in checkpoint), None)
    if names is None:
        raise checkpoint.error("its blocks are neither vision_transformer's nor big_vision's")
    has_token = f"{prefix}cls" in checkpoint
    positions = next((prefix + name for name in _POSITIONS if prefix + name in checkpoint), None)
    if positions is None:
        raise checkpoint.error(f"has no positions; looked for {' and '.join(_POSITIONS)}")
    side = int((checkpoint.shapes[positions][1]) ** 0.5)  # with a class token too: 197 -> 14
    size = wanted.image_size or (side * patch, side * patch)
    backbone = vits.build(
        "vit",
        size,
        wanted.dtype,
        patch_size=patch,
        num_layers=depth,
        num_heads=checkpoint.shapes[f"{layers}0/{names[0]}/query/kernel"][1],
        hidden_dim=width,
        mlp_dim=checkpoint.shapes[f"{layers}0/{names[1]}/Dense_0/kernel"][1],
        use_class_token=has_token,
        approximate_gelu=True,
    )
    sources = {
        **_dense("patch", f"{prefix}embedding"),
        **vits.position_sources(positions, "vit", backbone, int(has_token), wanted.positions or "bicubic"),
        **_norm("norm", f"{prefix}Transformer/encoder_norm"),
    }
    if has_token:
        sources["class_token"] = Source(f"{prefix}cls")
    for number in range(depth):
        parts = _block(f"{layers}{number}", *names)
        sources |= {f"{number}.{name}": source for name, source in parts.items()}
    ignored = transfer(
        checkpoint,
        vits.weights("vit", backbone),
        sources,
        (f"{prefix}head/*", f"{prefix}pre_logits/*", "opt/state/*", "extra/*", "params/t", "params/b", "params/txt/*"),
    )
    pooling = "token" if has_token else "average_of_patches"
    conversion = CONVERSIONS["inception"]
    loaded = Loaded(backbone, "vit", size, *conversion, pooling, None, "bilinear", int(has_token), None, tuple(ignored))
    return _with_head(loaded, checkpoint, prefix) if wanted.with_head else loaded


def _prefix_of(checkpoint: Checkpoint) -> str:
    """Returns the prefix of the names of a plain ViT's tensors.

    Raises:
        UserError: it is another model.
    """
    prefix = next((prefix for prefix in _PREFIXES if f"{prefix}embedding/kernel" in checkpoint), None)
    if prefix is None:
        raise checkpoint.error("no ViT of google-research; looked for embedding/kernel")
    if any(name.startswith((f"{prefix}conv_root", f"{prefix}block1/")) for name in checkpoint.shapes):
        raise checkpoint.error(
            "a hybrid of ResNet and ViT (R+ViT), which KerasHub's ViT cannot hold; choose a plain ViT"
        )
    if any(f"{prefix}MAPHead_0" in name for name in checkpoint.shapes):
        raise checkpoint.error("a ViT with attention pooling (MAPHead_0), which is not supported")
    if len(checkpoint.shapes[f"{prefix}embedding/kernel"]) != 4:
        raise checkpoint.error(f"embedding/kernel {checkpoint.shapes[f'{prefix}embedding/kernel']} is no convolution's")
    return prefix


def _block(block: str, attention: str, mlp: str, norm2: str) -> dict[str, Source]:
    sources = _norm("norm1", f"{block}/LayerNorm_0") | _norm("norm2", f"{block}/{norm2}")
    for name in ("query", "key", "value", "out"):
        sources |= _dense(name, f"{block}/{attention}/{name}")
    return sources | _dense("fc1", f"{block}/{mlp}/Dense_0") | _dense("fc2", f"{block}/{mlp}/Dense_1")


def _dense(key: str, name: str) -> dict[str, Source]:
    return {f"{key}.kernel": Source(f"{name}/kernel"), f"{key}.bias": Source(f"{name}/bias")}


def _norm(key: str, name: str) -> dict[str, Source]:
    return {f"{key}.gamma": Source(f"{name}/scale"), f"{key}.beta": Source(f"{name}/bias")}


def _with_head(loaded: Loaded, checkpoint: Checkpoint, prefix: str) -> Loaded:
    names = [f"{prefix}{part}" for part in ("head/kernel", "head/bias")]
    if not all(name in checkpoint for name in names):
        raise checkpoint.error("has no classifier of its own; give num_classes")
    kernel, bias = (checkpoint.read(name) for name in names)
    if not np.any(kernel):
        raise checkpoint.error("its classifier is all zeros; give num_classes")
    pre_logits = None
    if f"{prefix}pre_logits/kernel" in checkpoint:
        pre_logits = tuple(checkpoint.read(f"{prefix}pre_logits/{part}") for part in ("kernel", "bias"))
    used = (f"{prefix}head/", f"{prefix}pre_logits/")
    ignored = tuple(name for name in loaded.ignored if not name.startswith(used))
    return loaded._replace(head=Head(kernel, bias, None, pre_logits), ignored=ignored)
