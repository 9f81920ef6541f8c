"""Writes a folder that timm reads, `timm.create_model("local-dir:FOLDER", pretrained=True)`: ViT, DeiT, DINOv2, ResNet.

`config.json` with `model_args` and `pretrained_cfg`, and `model.safetensors`; written without timm.
"""

import numpy as np

from keras_dogs.errors import UserError
from keras_dogs.models.weights import resnets
from keras_dogs.models.weights import timm_names as names
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.transfer import Source
from keras_dogs.models.weights.transfer import collect
from keras_dogs.models.weights.writers import written
from keras_dogs.models.weights.writers.written import Canvas
from keras_dogs.models.weights.writers.written import Written

_LIBRARY = "timm"
_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
# By family: the form of the name, and the sizes that it has. `model_args` says everything else.
_NAMES = {
    "vit": ("vit_{}_patch16_224", ("tiny", "small", "base", "large")),
    "deit": ("deit_{}_distilled_patch16_224", ("tiny", "small", "base")),
    "dinov2": ("vit_{}_patch14_dinov2", ("small", "base", "large")),
}
_RESNETS = {
    ("basic_block", (2, 2, 2, 2)): 18,
    ("bottleneck_block", (2, 2, 2, 2)): 26,
    ("basic_block", (3, 4, 6, 3)): 34,
    ("bottleneck_block", (3, 4, 6, 3)): 50,
    ("bottleneck_block", (3, 4, 23, 3)): 101,
    ("bottleneck_block", (3, 8, 36, 3)): 152,
}
_EPSILON = 1e-6  # of the layer norms of timm's ViTs
_CROP_MODES = {"squash": "squash", "crop": "center", "pad": "border"}


def write(loaded: Loaded, class_names: list[str], canvas: Canvas) -> Written:
    """Makes the files of a classifier.

    Args:
        loaded: `Loaded`, in float32, with its head.
        class_names: list of str, in the order of the logits.
        canvas: `Canvas`.

    Raises:
        UserError: timm has no such model.
    """
    written.refuse(loaded, _LIBRARY)
    if loaded.family == "resnet":
        config, tensors, notes = _resnet(loaded)
    elif loaded.family in _NAMES:
        config, tensors, notes = _vit(loaded)
    else:
        raise UserError(f"{_LIBRARY}: a {loaded.family} cannot be written for it; {', '.join(_NAMES)}, resnet can")
    config |= {"num_classes": len(class_names), "label_names": class_names}
    config["pretrained_cfg"] |= _pretrained(loaded, canvas, class_names)
    if canvas.fit == "pad":
        notes = (*notes, f"keras_dogs pads a picture with black, {_LIBRARY} with the mean colour")
    return Written({"config.json": config}, tensors, (*notes, *written.resize_note(loaded, canvas, _LIBRARY)))


def _pretrained(loaded: Loaded, canvas: Canvas, class_names: list[str]) -> dict:
    mean, deviation = written.mean_and_deviation(loaded)
    return {
        "tag": "keras_dogs",
        "custom_load": False,
        "input_size": [3, *loaded.image_size],
        "interpolation": canvas.interpolation,
        "crop_pct": 1.0,
        "crop_mode": _CROP_MODES[canvas.fit],
        "mean": mean,
        "std": deviation,
        "num_classes": len(class_names),
        "label_names": class_names,
    }


def _vit(loaded: Loaded):
    family, own = loaded.family, loaded.backbone.get_config()
    has_token = own.get("use_class_token", True)
    if own.get("num_register_tokens") or own.get("use_swiglu_ffn"):
        raise UserError(
            f"{_LIBRARY}: a DINOv2 with registers or SwiGLU cannot be written for it; transformers takes it"
        )
    if not own.get("final_norm", True) and loaded.fc_norm is None:
        raise UserError(f"{_LIBRARY} has no ViT without any norm after its last block")
    if own.get("final_norm", True) and loaded.fc_norm is not None:
        raise UserError(f"{_LIBRARY} has no ViT with a norm before the pooling and one after it")
    pools = {"token": "token", "two_tokens": "token", "average_of_patches": "avg"}
    if loaded.pooling not in pools or (loaded.pooling == "average_of_patches" and family == "deit"):
        raise UserError(f"{_LIBRARY} has no {family} with this pooling ({loaded.pooling})")
    rows, columns = loaded.image_size
    mlp_dim = own.get("mlp_dim") or own["intermediate_dim"]
    arguments = {
        "img_size": [rows, columns],
        "patch_size": vits.patch_size_of(own),
        "embed_dim": own["hidden_dim"],
        "depth": own["num_layers"],
        "num_heads": own["num_heads"],
        "mlp_ratio": mlp_dim / own["hidden_dim"],
    }
    if family != "deit":
        arguments |= {"class_token": has_token, "global_pool": pools[loaded.pooling]}
        arguments |= {"fc_norm": loaded.fc_norm is not None}
        arguments |= {"act_layer": "gelu_tanh"} if own.get("approximate_gelu") else {}
    arguments |= {"init_values": own["layer_scale_init_value"]} if family == "dinov2" else {}
    form, sizes = _NAMES[family]
    size = _SIZES.get(own["hidden_dim"])
    config = {
        "architecture": form.format(size if size in sizes else "base"),
        "model_args": arguments,
        "pretrained_cfg": {"fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head"},
    }
    if family == "deit":
        config["pretrained_cfg"]["classifier"] = ["head", "head_dist"]
    epsilon = own.get("layer_norm_epsilon", _EPSILON)
    note = f"the epsilon of layer norms is {epsilon:g} in keras_dogs, {_EPSILON:g} in {_LIBRARY}"
    return config, _vit_tensors(loaded, has_token), (note,) if epsilon != _EPSILON else ()


def _vit_tensors(loaded: Loaded, has_token: bool) -> dict[str, np.ndarray]:
    family, backbone = loaded.family, loaded.backbone
    weights = vits.weights(family, backbone)
    if family == "dinov2":
        weights["position"] = weights.pop("position.resampled")  # the table that was trained
        weights.pop("mask_token", None)
    flat = Source("pos_embed", undo=lambda table: table.reshape(1, -1, table.shape[-1]))
    has = {"fc_norm.weight"} if loaded.fc_norm is not None else set()
    has |= {f"blocks.{number}.attn.qkv.bias" for number in range(backbone.num_layers)}
    num_prefix = {"deit": 2}.get(family, int(has_token))
    tensors = collect(weights, names.vit_sources(has, family, backbone, num_prefix) | {"position": flat})
    if loaded.fc_norm is not None:
        tensors |= {"fc_norm.weight": loaded.fc_norm[0], "fc_norm.bias": loaded.fc_norm[1]}
        tensors = {name: value for name, value in tensors.items() if not name.startswith("norm.")}
    kernel, bias = (np.asarray(value, np.float32) for value in loaded.head[:2])
    if family != "deit":
        return tensors | {"head.weight": np.ascontiguousarray(kernel.T), "head.bias": bias}
    # timm takes the mean of two heads; where one token is asked here, the other's is zero.
    hidden = backbone.get_config()["hidden_dim"]
    other = kernel[hidden:] if loaded.pooling == "two_tokens" else np.zeros_like(kernel)
    return tensors | written.two_heads(("head", "head_dist"), (kernel[:hidden], other), bias)


def _resnet(loaded: Loaded):
    own = loaded.backbone.get_config()
    if "stackwise_num_filters" not in own:
        raise UserError(
            f"{_LIBRARY} has no ResNet v1, whose stride is on the first convolution of a block, as that of "
            "keras.applications; train one of KerasHub, timm or transformers (v1.5) for it"
        )
    depth = _RESNETS.get((own["block_type"], tuple(own["stackwise_num_blocks"])))
    is_usual = own["stackwise_num_filters"] == [64, 128, 256, 512] and own["stackwise_num_strides"] == [1, 2, 2, 2]
    is_usual &= (own["input_conv_filters"], own["input_conv_kernel_sizes"]) == ([64], [7])
    if depth is None or not is_usual:
        raise UserError(
            f"{_LIBRARY} has no ResNet with this stem and these stages: {own['stackwise_num_blocks']} blocks"
        )
    is_v2 = own["use_pre_activation"]
    if is_v2 and depth == 26:
        raise UserError(f"{_LIBRARY} has no ResNet v2 of these stages: {own['stackwise_num_blocks']} blocks")
    sources = (names.resnet_v2_sources if is_v2 else names.resnet_sources)(loaded.backbone)
    tensors = collect(resnets.weights(loaded.backbone), sources)
    kernel, bias = (np.asarray(value, np.float32) for value in loaded.head[:2])
    head, stem = ("head.fc", "stem.conv") if is_v2 else ("fc", "conv1")
    matrix = np.ascontiguousarray(kernel.T)
    tensors |= {f"{head}.weight": matrix[:, :, None, None] if is_v2 else matrix, f"{head}.bias": bias}
    config = {
        "architecture": f"resnetv2_{depth}" if is_v2 else f"resnet{depth}",
        "global_pool": "avg",
        "pretrained_cfg": {"fixed_input_size": False, "first_conv": stem, "classifier": head},
    }
    return config, tensors, ()
