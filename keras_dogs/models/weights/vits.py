"""KerasHub's ViT, DeiT, DINOv2 and SigLIP backbones: built from plain values, all their weights under names of ours.

The names: `patch.kernel`, `patch.bias`, `class_token`, `distillation_token`, `position`, then for each block `0.norm1`,
`0.query`, `0.key`, `0.value`, `0.out`, `0.norm2`, `0.fc1`, `0.fc2` with `.kernel` and `.bias` or `.gamma` and `.beta`
(DINOv2: `0.scale1`, `0.scale2`), and `norm` (SigLIP: those of its pooling head as `head.query` and so on). Every source
of weights gives a source for each of them.
"""

import contextlib
import functools

import keras
import keras_hub
import numpy as np

from keras_dogs.backends import keras_inside
from keras_dogs.backends import register
from keras_dogs.errors import UserError
from keras_dogs.models import families
from keras_dogs.models.weights.positions import resample_positions
from keras_dogs.models.weights.transfer import Source
from keras_dogs.system.thread_flag import replaced_here


@keras.saving.register_keras_serializable(package="keras_dogs")
class ViTVariant(keras_hub.models.ViTBackbone):
    """KerasHub's ViT with two switches that some checkpoints need.

    Args:
        approximate_gelu: bool. GELU by its tanh approximation, as Flax computes it (`nn.gelu`), so as the models of
            vision_transformer and big_vision were trained.
        final_norm: bool. Whether a norm follows the last block; timm's models with `fc_norm` have it after the pooling.
    """

    def __init__(self, approximate_gelu=False, final_norm=True, **kwargs):
        super().__init__(**kwargs)
        self.approximate_gelu, self.final_norm = approximate_gelu, final_norm
        encoder = self.get_layer("vit_encoder")
        if approximate_gelu:
            for block in encoder.encoder_layers:
                block.mlp.dense_1.activation = _gelu_tanh
        if not final_norm:
            register.replace(encoder.layer_norm, "call", lambda tokens: tokens, "no_final_norm", register.FEATURE)
            encoder.layer_norm.trainable = False

    def get_config(self):
        """Returns everything that `__init__` takes."""
        return {
            **super().get_config(),
            "approximate_gelu": self.approximate_gelu,
            "final_norm": self.final_norm,
        }


@keras.saving.register_keras_serializable(package="keras_dogs")
class DINOV2Variant(keras_hub.models.DINOV2Backbone):
    """KerasHub's DINOv2, whose file holds the positions that were trained.

    KerasHub trains a table resampled to the picture's size, but saves the one it came from: what was learned is lost.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name in ("save_own_variables", "load_own_variables"):
            plain = getattr(keras.layers.Layer, name)
            setattr(self.embeddings, name, functools.partial(plain, self.embeddings))

    def as_stock(self, config: dict) -> keras.Model:
        """Returns KerasHub's own class with these weights; its table of positions becomes that of this size.

        Args:
            config: dict. This backbone's, or one with other dtypes.
        """
        size = config["image_shape"]
        again = keras_hub.models.DINOV2Backbone.from_config({**config, "position_embedding_shape": size})
        before = weights("dinov2", self)
        for name, weight in weights("dinov2", again).items():
            weight.assign(before["position.resampled" if name == "position" else name])
        return again


def _gelu_tanh(x):
    return keras.activations.gelu(x, approximate=True)


def check_patch_size(image_size: tuple[int, int], patch_size: int) -> None:
    """Refuses sizes that patches do not tile.

    Raises:
        UserError: it names the nearest sizes.
    """
    for side in image_size:
        if side % patch_size:
            below = side // patch_size * patch_size
            near = " or ".join(str(size) for size in (below, below + patch_size) if size)
            raise UserError(
                f"--image-size {side}: not a multiple of the patch size {patch_size}; the nearest are {near}"
            )


def build(family: str, image_size: tuple[int, int], dtype, **architecture) -> keras.Model:
    """Builds a backbone with random weights.

    Args:
        family: str. `"vit"`, `"deit"` or `"dinov2"`.
        image_size: pair of ints. Rows and columns of pixels.
        dtype: str or `keras.DTypePolicy` or `None`.
        **architecture: arguments of the KerasHub class; for a ViT also `approximate_gelu` and `final_norm`.
    """
    check_patch_size(image_size, architecture["patch_size"])
    is_variant = architecture.get("approximate_gelu") or not architecture.get("final_norm", True)
    if family == "vit" and not is_variant:
        architecture = {name: value for name, value in architecture.items() if name not in _SWITCHES}
    backbone_class = {
        "vit": ViTVariant if is_variant else keras_hub.models.ViTBackbone,
        "deit": keras_hub.models.DeiTBackbone,
        "dinov2": DINOV2Variant,
    }[family]
    return backbone_class(image_shape=(*image_size, 3), dtype=dtype, **architecture)


_SWITCHES = ("approximate_gelu", "final_norm")


@contextlib.contextmanager
def known_shapes():
    """Provides a context, or a decorator, in which KerasHub's ViT says that tokens keep their shape.

    Keras would trace all blocks to find out: half of what it takes to build a ViT-B/16 on TensorFlow.
    """
    encoder = keras_inside.find("vit_encoder")
    if encoder is None:
        yield
        return
    with replaced_here(encoder, "compute_output_shape", lambda self, input_shape: tuple(input_shape)):
        yield


def weights(family: str, backbone: keras.Model) -> dict:
    """Returns all weights of a backbone, under the names above."""
    return {"vit": _vit_weights, "deit": _deit_weights, "dinov2": _dinov2_weights, "siglip": _siglip_weights}[family](
        backbone
    )


def _vit_weights(backbone):
    embedding, encoder = backbone.get_layer("vit_patching_and_embedding"), backbone.get_layer("vit_encoder")
    found = _dense("patch", embedding.patch_embedding)
    if embedding.use_class_token:
        found["class_token"] = embedding.class_token
    found["position"] = embedding.position_embedding.embeddings
    for number, block in enumerate(encoder.encoder_layers):
        found |= _block(number, block.layer_norm_1, block.mha, block.layer_norm_2, block.mlp.dense_1, block.mlp.dense_2)
    return found | _norm("norm", encoder.layer_norm)


def _deit_weights(backbone):
    embedding, encoder = backbone.get_layer("deit_patching_and_embedding"), backbone.get_layer("deit_encoder")
    found = _dense("patch", embedding.patch_embedding)
    found["class_token"] = embedding.class_token
    found["distillation_token"] = embedding.distillation_token
    found["position"] = embedding.position_embedding
    for number, block in enumerate(encoder.encoder_layers):
        found |= _block(
            number, block.layer_norm_1, block.mha, block.layer_norm_2, block.mlp.dense, block.output_layer.dense
        )
    return found | _norm("norm", encoder.layer_norm)


def _dinov2_weights(backbone):
    embedding = backbone.embeddings
    found = _dense("patch", embedding.patch_embeddings.projection)
    found["class_token"] = embedding.cls_token
    if backbone.use_mask_token:
        found["mask_token"] = embedding.mask_token
    if backbone.num_register_tokens:
        found["register_tokens"] = embedding.register_tokens
    found["position"] = embedding.position_embeddings
    found["position.resampled"] = embedding.interpolated_position_embeddings
    for number, block in enumerate(backbone.encoder.layers):
        first, second = ("weights_in", "weights_out") if backbone.use_swiglu_ffn else ("fc1", "fc2")
        attention, mlp = block.attention.attention, block.mlp
        found |= _block(number, block.norm1, attention, block.norm2, getattr(mlp, first), getattr(mlp, second))
        found[f"{number}.scale1"] = block.layer_scale1.lambda1
        found[f"{number}.scale2"] = block.layer_scale2.lambda1
    return found | _norm("norm", backbone.layernorm)


def _siglip_weights(backbone):
    embedding, head = backbone.embedding, backbone.head
    found = _dense("patch", embedding.patch_embedding)
    found["position"] = embedding.position_embedding.embeddings
    for number, block in enumerate(backbone.encoder_layers):
        found |= _block(number, block.layer_norm1, block.self_attn, block.layer_norm2, block.mlp.fc1, block.mlp.fc2)
    found |= _norm("norm", backbone.post_layer_norm) | {"head.probe": head.probe}
    found |= _dense("head.query", head.attention.query_dense) | _dense("head.key", head.attention.key_dense)
    found |= _dense("head.value", head.attention.value_dense) | _dense("head.out", head.attention.output_dense)
    return (
        found
        | _norm("head.norm", head.layer_norm)
        | _dense("head.fc1", head.mlp.fc1)
        | _dense("head.fc2", head.mlp.fc2)
    )


def _block(number, norm1, attention, norm2, fc1, fc2):
    parts = {
        **_norm("norm1", norm1),
        **_dense("query", attention.query_dense),
        **_dense("key", attention.key_dense),
        **_dense("value", attention.value_dense),
        **_dense("out", attention.output_dense),
        **_norm("norm2", norm2),
        **_dense("fc1", fc1),
        **_dense("fc2", fc2),
    }
    return {f"{number}.{name}": weight for name, weight in parts.items()}


def _dense(name, layer):
    return {f"{name}.kernel": layer.kernel, f"{name}.bias": layer.bias}


def _norm(name, layer):
    return {f"{name}.gamma": layer.gamma, f"{name}.beta": layer.beta}


def patch_size_of(architecture) -> int:
    """Returns the side of a patch, pixels: KerasHub keeps an int or a pair, in a config or on a backbone."""
    patch = architecture["patch_size"] if isinstance(architecture, dict) else architecture.patch_size
    return patch[0] if isinstance(patch, (tuple, list)) else patch


def usual_size(family: str, own: tuple[int, int]) -> tuple[int, int]:
    """Returns the size at which weights for `own` are used: DINOv2 was trained at 518, and is used at 224 as a rule."""
    usual = families.family(family).usual_size
    return (usual, usual) if usual and own == (518, 518) else own


def grid_of(backbone: keras.Model) -> tuple[int, int]:
    """Returns rows and columns of patches."""
    return tuple(side // patch_size_of(backbone) for side in backbone.image_shape[:2])


def resized(backbone: keras.Model, family: str, size: tuple[int, int], num_prefix: int, method: str) -> keras.Model:
    """Returns the same backbone for another size: all weights alike, but the positions resampled.

    Args:
        backbone: `keras.Model` with weights.
        family: str. `"vit"`, `"deit"` or `"dinov2"`.
        size: pair of ints. Rows and columns of pixels.
        num_prefix: int. Tokens that have positions and stand before the patches.
        method: str. A method of `resample_positions`.
    """
    check_patch_size(size, patch_size_of(backbone))
    again = type(backbone).from_config({**backbone.get_config(), "image_shape": (*size, 3)})
    before = weights(family, backbone)
    for name, weight in weights(family, again).items():
        value = keras.ops.convert_to_numpy(before[name])
        if name.startswith("position") and value.shape != tuple(weight.shape):
            table = value.reshape(-1, value.shape[-1])
            # DINOv2's table as it was trained has a grid of its own, and always the same shape.
            value = resample_positions(table, grid_of(again), num_prefix, method, grid_of(backbone))
            value = np.reshape(value, weight.shape)
        weight.assign(value)
    return again


def position_sources(
    name: str, family: str, backbone: keras.Model, num_prefix: int, method: str, old_grid: tuple[int, int] | None = None
) -> dict[str, Source]:
    """Returns the source of the positions: a table `(1, positions, hidden)`, resampled to the backbone's grid.

    Args:
        name: str. The tensor.
        family: str. `"vit"`, `"deit"` or `"dinov2"`.
        backbone: `keras.Model`.
        num_prefix: int. Tokens that have positions and stand before the patches.
        method: str. A method of `resample_positions`.
        old_grid: pair of ints or `None`. Rows and columns of patches in the table; `None` is a square.
    """

    def resampled(table):
        table = table.reshape(-1, table.shape[-1])
        return resample_positions(table, grid_of(backbone), num_prefix, method, old_grid)

    if family != "dinov2":
        return {"position": Source(name, resampled)}
    # DINOv2 keeps the table as it was trained beside the one for this size.
    return {"position": Source(name), "position.resampled": Source(name, resampled)}
