"""Hugging Face checkpoints in a folder: ViT, DeiT, DINOv2 and ResNet, `config.json` with safetensors (in shards too).

The layouts are those of `transformers/models/{vit,deit,dinov2,resnet}/modeling_*.py`. KerasHub converts the first three
too, but ignores `layer_norm_eps`, the classifier's second head, and tensors that it does not know.
"""

import functools
from pathlib import Path
from typing import Annotated
from typing import NamedTuple
from typing import NotRequired
from typing import TypedDict

import numpy as np
from msgspec import Meta

from keras_dogs.errors import UserError
from keras_dogs.models import families
from keras_dogs.models.presets import CONVERSIONS
from keras_dogs.models.weights import config_keys
from keras_dogs.models.weights import hugging_face_names as names
from keras_dogs.models.weights import resnets
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.checkpoint import Checkpoint
from keras_dogs.models.weights.checkpoint import open_checkpoint
from keras_dogs.models.weights.loaded import Head
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.models.weights.loaded import conversion_of
from keras_dogs.models.weights.transfer import transfer
from keras_dogs.system import memory
from keras_dogs.system import reading

FAMILIES = {"vit": "vit", "deit": "deit", "dinov2": "dinov2", "dinov2_with_registers": "dinov2", "resnet": "resnet"}
_GELUS = {"gelu": False, "gelu_new": True, "gelu_pytorch_tanh": True, "gelu_fast": True}
_HEADS = ("classifier.*", "cls_classifier.*", "distillation_classifier.*")
_IGNORED = (*_HEADS, "*pooler.*", "*mask_token", "*.num_batches_tracked", "decoder.*")


_Width = Annotated[int, Meta(ge=1, le=100_000)]


class _OfAll(TypedDict):
    hidden_act: NotRequired[str]
    id2label: NotRequired[dict[str, str] | None]


class _OfVit(_OfAll):
    hidden_size: Annotated[int, Meta(ge=1, le=20_000)]
    num_hidden_layers: Annotated[int, Meta(ge=1, le=500)]
    num_attention_heads: Annotated[int, Meta(ge=1, le=1000)]
    intermediate_size: NotRequired[_Width]
    layer_norm_eps: NotRequired[Annotated[float, Meta(ge=0, le=0.1)]]
    qkv_bias: NotRequired[bool]
    mlp_ratio: NotRequired[Annotated[float, Meta(gt=0, le=100)]]
    layerscale_value: NotRequired[Annotated[float, Meta(ge=-1000, le=1000)]]
    num_register_tokens: NotRequired[Annotated[int, Meta(ge=0, le=1000)]]
    use_mask_token: NotRequired[bool]
    use_swiglu_ffn: NotRequired[bool]


class _OfResNet(_OfAll):
    embedding_size: _Width
    hidden_sizes: Annotated[list[_Width], Meta(min_length=1, max_length=10)]
    depths: Annotated[list[Annotated[int, Meta(ge=1, le=500)]], Meta(min_length=1, max_length=10)]
    layer_type: NotRequired[str]
    downsample_in_first_stage: NotRequired[bool]
    downsample_in_bottleneck: NotRequired[bool]


def load(wanted: Wanted, folder: Path, config: dict) -> Loaded:
    """Loads a folder whose `config.json` is `config`."""
    model_type = config["model_type"]
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise wanted.error(
            f"model type {model_type} of Hugging Face is not supported; supported are {', '.join(FAMILIES)}"
        )
    config_keys.check(wanted.error, "config.json", config, config_keys.HUGGING_FACE[model_type])
    try:
        reading.check(config, _OfResNet if model_type == "resnet" else _OfVit, "config.json")
    except UserError as error:
        raise wanted.error(error.args[0]) from error
    try:
        return (_load_resnet if model_type == "resnet" else _load_vit)(wanted, folder, config)
    except KeyError as error:
        raise wanted.error(f"config.json lacks {error}") from error


def _load_vit(wanted: Wanted, folder: Path, config: dict) -> Loaded:
    family = FAMILIES[config["model_type"]]
    own = config_keys.size(wanted.error, "config.json", config, "image_size")
    prepared = _preprocessing(wanted, folder, family)
    # A DINOv2 says 518, and its preprocessor 224.
    size = wanted.image_size or (family == "dinov2" and prepared.size) or vits.usual_size(family, own)
    architecture = _architecture(wanted, family, own, config)
    _check_size(wanted, folder, config, architecture.get("mlp_dim") or architecture["intermediate_dim"])
    backbone = vits.build(family, size, wanted.dtype, **architecture)
    num_prefix = families.family(family).num_prefix + config.get("num_register_tokens", 0)
    loaded = Loaded(backbone, family, size, *prepared.conversion, "token", num_prefix=num_prefix)
    loaded = loaded._replace(interpolation=prepared.interpolation, notes=prepared.notes)
    if not wanted.load_weights:
        return loaded
    with open_checkpoint(wanted.preset, folder) as checkpoint:
        return _fill_vit(wanted, loaded, checkpoint, config)


def _fill_vit(wanted: Wanted, loaded: Loaded, checkpoint: Checkpoint, config: dict) -> Loaded:
    family, backbone = loaded.family, loaded.backbone
    base = _base(checkpoint, "embeddings.cls_token")
    # DINOv2's own code resamples without antialiasing, with registers with it.
    own_method = "bicubic_plain" if config["model_type"] == "dinov2" else "bicubic"
    num_prefix = families.family(family).num_positions_before
    method = wanted.positions or own_method
    table = f"{base}embeddings.position_embeddings"
    patch = vits.patch_size_of(config)
    grid = tuple(side // patch for side in config_keys.size(wanted.error, "config.json", config, "image_size"))
    sources = vits.position_sources(table, family, backbone, num_prefix, method, grid)
    sources |= names.vit_sources(base, family, config)
    ignored = transfer(checkpoint, vits.weights(family, backbone), sources, _IGNORED)
    loaded = loaded._replace(ignored=tuple(ignored), notes=(*checkpoint.notes, *loaded.notes))
    return _with_head(loaded, checkpoint, config) if wanted.with_head else loaded


def _architecture(wanted: Wanted, family: str, own: tuple[int, int], config: dict) -> dict:
    activation = config.get("hidden_act", "gelu")
    if activation not in _GELUS:
        raise wanted.error(f"activation {activation} is not supported")
    read = functools.partial(config_keys.number, wanted.error, "config.json", config)
    patch = config_keys.size(wanted.error, "config.json", config, "patch_size")
    if patch[0] != patch[1]:
        raise wanted.error(f"config.json: patch_size is {list(patch)}; only square patches are supported")
    common = dict(
        patch_size=patch[0],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        hidden_dim=config["hidden_size"],
    )
    if common["hidden_dim"] % common["num_heads"]:
        raise wanted.error(
            f"config.json: num_attention_heads is {common['num_heads']}, which does not divide hidden_size "
            f"{common['hidden_dim']}"
        )
    default = 1e-6 if family == "dinov2" else 1e-12  # of transformers' own configs
    epsilon, approximate = read("layer_norm_eps", default, 0, 0.1, float), _GELUS[activation]
    if family == "vit":
        return common | dict(
            mlp_dim=config["intermediate_size"], layer_norm_epsilon=epsilon, approximate_gelu=approximate
        )
    if approximate or (family == "dinov2" and epsilon != 1e-6):
        raise wanted.error(f"a {family} with {activation} and layer_norm_eps {epsilon} is not supported")
    if family == "deit":
        return common | dict(intermediate_dim=config["intermediate_size"], layer_norm_epsilon=epsilon)
    return common | dict(
        intermediate_dim=int(config["hidden_size"] * config["mlp_ratio"]),
        layer_scale_init_value=config.get("layerscale_value", 1.0),
        num_register_tokens=config.get("num_register_tokens", 0),
        use_mask_token=False,  # it stands for patches that are hidden in pretraining
        use_swiglu_ffn=bool(config.get("use_swiglu_ffn")),
        position_embedding_shape=own,
        antialias_in_interpolation=config["model_type"] != "dinov2",
    )


def _check_size(wanted: Wanted, folder: Path, config: dict, mlp_dim: int) -> None:
    """Refuses an architecture that is larger than the weights beside it, or than the memory, before it is built."""
    width = config["hidden_size"]
    least = config["num_hidden_layers"] * (4 * width**2 + 2 * width * mlp_dim)
    what = f"config.json: hidden_size {width:,} and num_hidden_layers {config['num_hidden_layers']:,} mean {least:,}"
    files = list(folder.glob("*.safetensors")) if wanted.load_weights else []
    held = sum(file.stat().st_size for file in files)
    if files and least > held:
        raise wanted.error(f"{what} parameters or more, and the weights beside it take {held:,} bytes")
    available = memory.available_bytes()
    if available is not None and 4 * least > available:
        raise wanted.error(f"{what} parameters or more, and {available / 2**30:.1f} GiB of memory are free")


def _load_resnet(wanted: Wanted, folder: Path, config: dict) -> Loaded:
    is_bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
    filters = [size // 4 if is_bottleneck else size for size in config["hidden_sizes"]]
    if config.get("downsample_in_bottleneck"):
        raise wanted.error(
            "its stride is on the first convolution of a block (v1), which KerasHub's ResNet cannot hold"
        )
    if (config["embedding_size"], filters[0], config.get("hidden_act", "relu")) != (64, 64, "relu"):
        raise wanted.error("only ResNets that begin with 64 channels and use ReLU are supported")
    first_stride = 2 if config.get("downsample_in_first_stage") else 1
    backbone = resnets.build(config["depths"], is_bottleneck, False, wanted.dtype, first_stride, filters)
    prepared = _preprocessing(wanted, folder, "resnet")
    size = wanted.image_size or prepared.size or (224, 224)
    loaded = Loaded(backbone, "resnet", size, *prepared.conversion, "average", num_prefix=0)
    loaded = loaded._replace(interpolation=prepared.interpolation, notes=prepared.notes)
    if not wanted.load_weights:
        return loaded
    with open_checkpoint(wanted.preset, folder) as checkpoint:
        base = _base(checkpoint, "embedder.embedder.convolution.weight")
        ignored = transfer(checkpoint, resnets.weights(backbone), names.resnet_sources(base, backbone), _IGNORED)
        loaded = loaded._replace(ignored=tuple(ignored))
        return _with_head(loaded, checkpoint, config) if wanted.with_head else loaded


def _base(checkpoint: Checkpoint, name: str) -> str:
    """Returns the prefix of the backbone's tensor names: empty, or `vit.` and the like in a classifier."""
    full = next((tensor for tensor in checkpoint.shapes if tensor.endswith(name)), name)
    return full.removesuffix(name)


def _with_head(loaded: Loaded, checkpoint: Checkpoint, config: dict) -> Loaded:
    """Returns the checkpoint's classifier; with a teacher's (DeiT), both heads' mean, as one head on both tokens."""
    labels = config.get("id2label") or {}
    if labels and labels.keys() != {str(index) for index in range(len(labels))}:
        raise checkpoint.error("config.json: id2label does not name the classes 0, 1, 2 and so on")
    names = [labels[str(index)] for index in range(len(labels))] if labels else None
    pairs = [("cls_classifier", "distillation_classifier"), ("classifier.1",), ("classifier",)]
    found = next((pair for pair in pairs if all(f"{name}.weight" in checkpoint for name in pair)), None)
    if found is None:
        raise checkpoint.error("has no classifier of its own; give num_classes")
    heads = [(checkpoint.read(f"{name}.weight").T, checkpoint.read(f"{name}.bias")) for name in found]
    if names and len(names) != len(heads[0][1]):
        raise checkpoint.error(
            f"config.json: id2label has {len(names)} names, the classifier {len(heads[0][1])} classes"
        )
    used = {f"{name}.{part}" for name in found for part in ("weight", "bias")}
    ignored = tuple(name for name in loaded.ignored if name not in used)
    pooling = {"dinov2": "token_and_average"}.get(loaded.family, loaded.pooling)
    if len(heads) == 2:
        pooling = "two_tokens"
    return loaded._replace(head=mean_head(heads, names), pooling=pooling, ignored=ignored)


def mean_head(heads: list, class_names: list[str] | None = None) -> Head:
    """Returns one head on concatenated features whose logits are the mean of several heads' logits."""
    kernel = np.concatenate([kernel for kernel, _ in heads]) / len(heads)
    return Head(kernel, sum(bias for _, bias in heads) / len(heads), class_names)


class _Preprocessing(NamedTuple):
    """What `preprocessor_config.json` says.

    Attributes:
        conversion: pair of tuples of 3 floats. Scale and offset of `Loaded`.
        interpolation: str.
        notes: tuple of str.
        size: pair of ints or `None`. Rows and columns of what the model is given, pixels.
    """

    conversion: tuple[tuple[float, ...], tuple[float, ...]]
    interpolation: str = "bilinear"
    notes: tuple[str, ...] = ()
    size: tuple[int, int] | None = None


def _preprocessing(wanted: Wanted, folder: Path, family: str) -> _Preprocessing:
    """Returns the checkpoint's own conversion, resampling and size; the family's conversion where it brings none.

    Raises:
        UserError: the file is damaged, or has a key that is unknown or out of range.
    """
    file = folder / "preprocessor_config.json"
    conversion = CONVERSIONS[families.family(family).conversion]
    if not file.is_file():
        return _Preprocessing(conversion)
    try:
        values = reading.read_json(file, name=file.name)
    except UserError as error:
        raise wanted.error(error.args[0]) from error
    config_keys.check(wanted.error, file.name, values, config_keys.PREPROCESSOR)
    # Without rescaling, mean and deviation are of pixels in [0, 255].
    rescale = config_keys.number(wanted.error, file.name, values, "rescale_factor", 1 / 255, 1e-6, 1e3, float)
    rescale = rescale if values.get("do_rescale", True) else 1.0
    if not values.get("do_normalize", True):
        conversion = conversion_of([0.0] * 3, [1.0] * 3, rescale)
    elif "image_mean" in values or "image_std" in values:
        mean = config_keys.colours(wanted.error, file.name, values, "image_mean")
        deviation = config_keys.colours(wanted.error, file.name, values, "image_std", True)
        conversion = conversion_of(mean, deviation, rescale)
    elif rescale != 1 / 255:
        raise wanted.error(f"{file.name}: do_rescale or rescale_factor is given without image_mean and image_std")
    interpolation, notes = config_keys.interpolation_of(values.get("resample", 2))
    notes = (*notes, *config_keys.crop_note(_share_seen(values)))
    return _Preprocessing(conversion, interpolation, notes, _size(wanted, file.name, values))


def _size(wanted: Wanted, file: str, values: dict) -> tuple[int, int] | None:
    """Returns rows and columns of what is cut out, or resized to; `None` where the file does not say."""
    cut = values.get("crop_size") if values.get("do_center_crop") else None
    found = cut or values.get("size")
    if isinstance(found, dict):
        side = found.get("shortest_edge")
        found = [found.get("height", side), found.get("width", side)]
    return None if found in (None, [None, None]) else config_keys.size(wanted.error, file, {"size": found}, "size")


def _share_seen(values: dict) -> float | None:
    """Returns the side of the centre that is cut out, as a share of the picture's shorter side."""
    if isinstance(values.get("crop_pct"), float):  # ConvNeXT's processor, which ResNets have
        return values["crop_pct"]
    sizes = [values.get(name) for name in ("crop_size", "size")]
    sizes = [size.get("shortest_edge", size.get("height")) if isinstance(size, dict) else size for size in sizes]
    is_cropped = values.get("do_center_crop") and all(isinstance(size, (int, float)) and size > 0 for size in sizes)
    return sizes[0] / sizes[1] if is_cropped else None
