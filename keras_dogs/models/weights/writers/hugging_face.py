"""Writes a folder that Hugging Face's transformers reads: ViT, DeiT, DINOv2 (with registers too) and ResNet.

`config.json`, `model.safetensors` and `preprocessor_config.json`, as `AutoModelForImageClassification.from_pretrained`
and `pipeline("image-classification", ...)` take them; written without transformers.
"""

import numpy as np

from keras_dogs.errors import UserError
from keras_dogs.models.weights import hugging_face_names as names
from keras_dogs.models.weights import keras_applications
from keras_dogs.models.weights import resnets
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.transfer import Source
from keras_dogs.models.weights.transfer import collect
from keras_dogs.models.weights.writers import written
from keras_dogs.models.weights.writers.written import Canvas
from keras_dogs.models.weights.writers.written import Written
from keras_dogs.runs.exports import NOT_READ_BACK

_LIBRARY = "transformers"
_PIL_FILTERS = {"bilinear": 2, "bicubic": 3}
_MODELS = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "dinov2": "Dinov2ForImageClassification",
    "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
    "resnet": "ResNetForImageClassification",
}


def write(loaded: Loaded, class_names: list[str], canvas: Canvas) -> Written:
    """Makes the files of a classifier.

    Args:
        loaded: `Loaded`, in float32, with its head.
        class_names: list of str, in the order of the logits.
        canvas: `Canvas`.

    Raises:
        UserError: transformers has no such model.
    """
    written.refuse(loaded, _LIBRARY)
    if loaded.fc_norm is not None:
        raise UserError(f"{_LIBRARY} has no norm between pooling and head, which these weights have")
    if loaded.family == "resnet":
        config, tensors = _resnet(loaded)
    elif loaded.family in _MODELS:
        config, tensors = _vit(loaded)
    else:
        raise UserError(f"{_LIBRARY}: a {loaded.family} cannot be written for it; {', '.join(_MODELS)} can")
    if len(set(class_names)) < len(class_names):
        raise UserError(f"{_LIBRARY} names classes by a table, and two of these have the same name")
    config |= {
        "id2label": {str(place): name for place, name in enumerate(class_names)},
        "label2id": {name: place for place, name in enumerate(class_names)},
        "problem_type": "single_label_classification",
        "dtype": "float32",
    }
    preprocessor, notes = _preprocessor(loaded, canvas)
    if config.get("downsample_in_bottleneck"):
        notes = (*notes, f"{NOT_READ_BACK}: its ResNets have their strides elsewhere (v1.5)")
    return Written({"config.json": config, "preprocessor_config.json": preprocessor}, tensors, notes)


def _vit(loaded: Loaded):
    family, own = loaded.family, loaded.backbone.get_config()
    if not own.get("use_class_token", True):
        raise UserError(f"{_LIBRARY} has no ViT without a class token")
    if not own.get("final_norm", True):
        raise UserError(f"{_LIBRARY} has no ViT without a norm after its last block")
    model_type = "dinov2_with_registers" if own.get("num_register_tokens") else family
    base = f"{model_type}."
    side = written.square_side(loaded)
    if family == "dinov2" and side is None:
        raise UserError(f"{_LIBRARY} would resample the positions of a DINOv2 whose pictures are not square")
    config = {
        "model_type": model_type,
        "architectures": [_MODELS[model_type]],
        "hidden_size": own["hidden_dim"],
        "num_hidden_layers": own["num_layers"],
        "num_attention_heads": own["num_heads"],
        "hidden_act": "gelu_pytorch_tanh" if own.get("approximate_gelu") else "gelu",
        "layer_norm_eps": own.get("layer_norm_epsilon", 1e-6),
        "image_size": side or list(loaded.image_size),
        "patch_size": vits.patch_size_of(own),
        "num_channels": 3,
        "qkv_bias": True,
    }
    if family == "dinov2":
        if own["intermediate_dim"] % own["hidden_dim"]:
            raise UserError(f"{_LIBRARY} has no DINOv2 whose MLP is no whole multiple of its width")
        config |= {
            "mlp_ratio": own["intermediate_dim"] // own["hidden_dim"],
            "layerscale_value": own["layer_scale_init_value"],
            "use_swiglu_ffn": own["use_swiglu_ffn"],
        }
        config |= {"num_register_tokens": own["num_register_tokens"]} if own["num_register_tokens"] else {}
        config |= {} if own["num_register_tokens"] else {"use_mask_token": own["use_mask_token"]}
    else:
        config["intermediate_size"] = own.get("mlp_dim") or own["intermediate_dim"]
    weights, sources = _weights_and_positions(loaded, base)
    tensors = collect(weights, sources | names.vit_sources(base, family, config))
    if own.get("num_register_tokens") and f"{base}embeddings.mask_token" not in tensors:
        tensors[f"{base}embeddings.mask_token"] = np.zeros((1, own["hidden_dim"]), np.float32)
    if loaded.pooling == "two_tokens":
        config["architectures"] = ["DeiTForImageClassificationWithTeacher"]
    return config, tensors | _vit_head(loaded)


def _weights_and_positions(loaded: Loaded, base: str):
    """Returns the weights, with DINOv2's positions as resampled, and the sources of positions and mask token."""
    weights = vits.weights(loaded.family, loaded.backbone)
    positions = Source(f"{base}embeddings.position_embeddings", undo=lambda each: each.reshape(1, -1, each.shape[-1]))
    if loaded.family != "dinov2":
        return weights, {"position": positions}
    weights["position"] = weights.pop("position.resampled")  # the table that was trained
    sources = {"position": positions}
    if "mask_token" in weights:
        sources["mask_token"] = Source(f"{base}embeddings.mask_token")
    return weights, sources


def _vit_head(loaded: Loaded) -> dict[str, np.ndarray]:
    """Returns the tensors of the classifier; of DeiT with a teacher two, whose mean is ours."""
    kernel, bias = (np.asarray(value, np.float32) for value in loaded.head[:2])
    hidden = loaded.backbone.get_config()["hidden_dim"]
    if loaded.pooling == "two_tokens":
        names_of_heads = ("cls_classifier", "distillation_classifier")
        return written.two_heads(names_of_heads, (kernel[:hidden], kernel[hidden:]), bias)
    if loaded.family == "dinov2" and loaded.pooling == "token":  # there the average of the patches is beside it
        kernel = np.concatenate([kernel, np.zeros_like(kernel)])
    elif loaded.family == "dinov2" and loaded.pooling != "token_and_average":
        raise UserError(f"{_LIBRARY} has no DINOv2 with this pooling ({loaded.pooling})")
    elif loaded.family != "dinov2" and loaded.pooling != "token":
        raise UserError(f"{_LIBRARY} has no {loaded.family} with this pooling ({loaded.pooling})")
    return {"classifier.weight": np.ascontiguousarray(kernel.T), "classifier.bias": bias}


def _resnet(loaded: Loaded):
    own = loaded.backbone.get_config()
    if "stackwise_num_filters" not in own:
        return _resnet_v1(loaded)
    if own["use_pre_activation"]:
        raise UserError(f"{_LIBRARY} has no ResNet v2 with batch norm")
    strides, is_bottleneck = own["stackwise_num_strides"], own["block_type"] == "bottleneck_block"
    stem = own["input_conv_filters"], own["input_conv_kernel_sizes"]
    if stem != ([64], [7]) or strides[1:] != [2] * (len(strides) - 1):
        raise UserError(f"{_LIBRARY} has no ResNet with this stem or these strides")
    config = {
        "model_type": "resnet",
        "architectures": [_MODELS["resnet"]],
        "num_channels": 3,
        "embedding_size": 64,
        "hidden_sizes": [filters * (4 if is_bottleneck else 1) for filters in own["stackwise_num_filters"]],
        "depths": list(own["stackwise_num_blocks"]),
        "layer_type": "bottleneck" if is_bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": strides[0] == 2,
        "downsample_in_bottleneck": False,
    }
    tensors = collect(resnets.weights(loaded.backbone), names.resnet_sources("resnet.", loaded.backbone))
    return config, tensors | _resnet_head(loaded)


def _resnet_v1(loaded: Loaded):
    """Makes a ResNet of keras.applications: its stride is on the first convolution of a block."""
    shape = keras_applications.shape_of(loaded.backbone)
    config = {
        "model_type": "resnet",
        "architectures": [_MODELS["resnet"]],
        "num_channels": 3,
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": list(shape.stackwise_num_blocks),
        "layer_type": "bottleneck",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": True,
    }
    weights = keras_applications.folded_weights(loaded.backbone)
    return config, collect(weights, names.resnet_sources("resnet.", shape)) | _resnet_head(loaded)


def _resnet_head(loaded: Loaded) -> dict[str, np.ndarray]:
    kernel, bias = (np.asarray(value, np.float32) for value in loaded.head[:2])
    return {"classifier.1.weight": np.ascontiguousarray(kernel.T), "classifier.1.bias": bias}


def _preprocessor(loaded: Loaded, canvas: Canvas):
    """Returns the config of the closest image processor, and notes on what it does differently from keras_dogs."""
    mean, deviation = written.mean_and_deviation(loaded)
    rows, columns = loaded.image_size
    common = {
        "do_resize": True,
        "resample": _PIL_FILTERS[canvas.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": deviation,
        "do_convert_rgb": True,
    }
    notes = written.resize_note(loaded, canvas, _LIBRARY)
    if canvas.fit == "crop" and rows == columns:
        cut = {"size": {"shortest_edge": rows}, "do_center_crop": True, "crop_size": {"height": rows, "width": columns}}
        return {"image_processor_type": "BitImageProcessor", **common, **cut}, notes
    if canvas.fit != "squash":
        notes = (*notes, f"keras_dogs {canvas.fit}s a picture to these proportions, {_LIBRARY} squashes it")
    size = {"size": {"height": rows, "width": columns}}
    return {"image_processor_type": "ViTImageProcessor", **common, **size}, notes
