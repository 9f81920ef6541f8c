"""KerasHub presets: by name, `kaggle://`, or a folder that KerasHub saved; and the table's architectures, at random."""

from pathlib import Path

import keras
import keras_hub
import numpy as np

from keras_dogs.backends import keras_inside
from keras_dogs.models import families
from keras_dogs.models.presets import CONVERSIONS
from keras_dogs.models.presets import EMBEDDED_FOLDER
from keras_dogs.models.presets import PRESETS
from keras_dogs.models.presets import Preset
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.loaded import Head
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.models.weights.positions import resample_positions
from keras_dogs.system.network import in_words
from keras_dogs.system.network import is_offline


def load(wanted: Wanted, handle: str) -> Loaded:
    """Loads a preset by name, handle or folder."""
    row = PRESETS.get(handle)
    if row and not wanted.load_weights:
        return _build_from_table(wanted, row)
    if row and row.source is None:
        published = [name for name, other in PRESETS.items() if other.source and name.startswith(handle)]
        hint = f"; {' and '.join(published[:2])} have" if published else ""
        raise wanted.error(f"an architecture without published weights (load_weights=False builds it){hint}")
    if row and row.source == "embedded":
        handle = str(EMBEDDED_FOLDER / handle)
    if Path(handle).is_dir() and not any(Path(handle).glob("*.weights.h5")):
        raise wanted.error("config.json without weights; looked for model.weights.h5 or model.safetensors")
    if is_offline() and not Path(handle).is_dir():
        _refuse_download(wanted, handle)
    try:
        return _load_preset(wanted, handle)
    except (ValueError, TypeError, KeyError, OSError, ImportError, AttributeError) as error:
        raise wanted.error(f"KerasHub cannot load it: {in_words(error)}") from error


def _build_from_table(wanted: Wanted, row: Preset) -> Loaded:
    size = wanted.image_size or (row.image_size, row.image_size)
    if "patch_size" in row.architecture:
        vits.check_patch_size(size, row.architecture["patch_size"])
    backbone_class = getattr(keras_hub.models, families.family(row.family).classes[0])
    backbone = backbone_class(image_shape=(*size, 3), dtype=wanted.dtype, **row.architecture)
    conversion = CONVERSIONS[row.conversion]
    family = families.family(row.family)
    return Loaded(backbone, family.name, size, *conversion, family.pooling, num_prefix=family.num_prefix)


def _config_of(handle: str) -> dict:
    """Reads the config of a preset; to build it only to look at it would take seconds."""
    if load_json := keras_inside.find("load_json"):
        return load_json(handle, "config.json")
    return keras.saving.serialize_keras_object(keras_hub.models.Backbone.from_preset(handle, load_weights=False))


def _load_preset(wanted: Wanted, handle: str) -> Loaded:
    saved = _config_of(handle)
    class_name, config = saved["registered_name"].partition(">")[2] or saved["class_name"], saved["config"]
    row = families.of_class(class_name)
    if row is None:
        raise wanted.error(f"neither a ViT nor a ResNet but a {class_name}")
    family = row.name
    config = config["vision_encoder"]["config"] if "vision_encoder" in config else config  # text beside pictures
    own = tuple(config["image_shape"][:2])
    size = _with_size_of_converter(wanted, handle, _image_size(wanted, row, own, config), own)
    is_resampled = row.resizing == "positions" and size != own and wanted.load_weights
    num_prefix = int(config.get("use_class_token", True)) if family == "vit" else row.num_prefix
    if class_name == "SigLIPBackbone":
        whole = keras_hub.models.Backbone.from_preset(handle, load_weights=wanted.load_weights, dtype=wanted.dtype)
        backbone, is_resampled = whole.vision_encoder, size != own
    else:
        backbone = keras_hub.models.Backbone.from_preset(
            handle,
            load_weights=wanted.load_weights,
            dtype=wanted.dtype,
            image_shape=(*(own if is_resampled else size), 3),
        )
    if is_resampled:
        backbone = vits.resized(backbone, family, size, num_prefix, wanted.positions or "bicubic")
    if row.resizing == "backbone":
        backbone = _with_own_positions(backbone, wanted)
    pooling = "average_of_patches" if family == "vit" and not num_prefix else row.pooling
    pooling, head = _load_head(wanted, handle) if wanted.with_head else (pooling, None)
    *conversion, interpolation = _load_conversion(handle, family)
    num_prefix += getattr(backbone, "num_register_tokens", 0)
    return Loaded(backbone, family, size, *conversion, pooling, head, interpolation, num_prefix)


def _with_own_positions(backbone: keras.Model, wanted: Wanted) -> keras.Model:
    """Returns a DINOv2 that keeps what it learns of positions, resampled in NumPy: the same on every backend."""
    # The mask token stands for patches that are hidden in pretraining: here it would get no gradient.
    again = vits.DINOV2Variant.from_config({**backbone.get_config(), "use_mask_token": False})
    before, after = (vits.weights("dinov2", model) for model in (backbone, again))
    for name, weight in after.items():
        weight.assign(before[name])
    table = keras.ops.convert_to_numpy(after["position"])[0]
    method = wanted.positions or ("bicubic" if backbone.embeddings.antialias_in_interpolation else "bicubic_plain")
    after["position.resampled"].assign(resample_positions(table, vits.grid_of(again), 1, method)[None])
    return again


def _image_size(wanted: Wanted, row: families.Family, own: tuple, config: dict) -> tuple[int, int]:
    if row.kind == families.VIT:
        size = wanted.image_size or ((row.usual_size,) * 2 if row.usual_size else own)
        vits.check_patch_size(size, vits.patch_size_of(config))
        return size
    return wanted.image_size or tuple(side or 224 for side in own)


def _with_size_of_converter(wanted: Wanted, handle: str, size: tuple[int, int], own: tuple) -> tuple[int, int]:
    """Returns the size that a folder's image converter makes, where the backbone takes any."""
    if wanted.image_size or None not in own or not Path(handle).is_dir():
        return size
    try:
        made = keras_hub.layers.ImageConverter.from_preset(handle).image_size
    except (ValueError, FileNotFoundError, AttributeError):
        return size
    return tuple(made) if made else size


def _load_conversion(handle: str, family: str):
    """Returns the preset's own scale, offset and interpolation; the family's where it brings none."""
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(handle)
    except (ValueError, FileNotFoundError):
        converter = None
    if converter is None:
        return *CONVERSIONS[families.family(family).conversion], "bilinear"
    interpolation = "bicubic" if converter.interpolation == "bicubic" else "bilinear"
    return _three(converter.scale, 1.0), _three(converter.offset, 0.0), interpolation


def _three(value, default: float) -> tuple[float, ...]:
    values = [default] if value is None else [float(number) for number in keras.ops.convert_to_numpy(value).reshape(-1)]
    return tuple(values * 3 if len(values) == 1 else values)


def _load_head(wanted: Wanted, handle: str):
    """Returns pooling and Dense weights of the preset's own classifier."""
    try:
        task = keras_hub.models.ImageClassifier.from_preset(handle, preprocessor=None)
        kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in task.output_dense.weights)
    except (ValueError, FileNotFoundError, AttributeError) as error:
        raise wanted.error("has no classifier of its own; give num_classes") from error
    if not np.any(kernel):
        raise wanted.error("its classifier is all zeros; give num_classes")
    layer = getattr(task, "intermediate_layer", None)
    pre_logits = tuple(layer.get_weights()) if layer is not None else None
    # KerasHub's average of a ViT counts every token, the class token too.
    is_vit = families.of_backbone(task.backbone).kind == families.VIT
    pooling = {"token": "token", "gap": "average_of_tokens" if is_vit else "average", "avg": "average"}[task.pooling]
    return pooling, Head(kernel, bias, None, pre_logits)


def cached_folder(preset: str) -> tuple[Path | None, bool]:
    """Returns where Kaggle's cache keeps a preset, `None` where KerasHub does not say; and whether it has its weights.

    Args:
        preset: str. A name of KerasHub, or `kaggle://...`.
    """
    from kagglehub.cache import get_cached_path
    from kagglehub.handle import parse_model_handle

    address = preset
    if not preset.startswith("kaggle://"):
        address = next(
            (
                known[preset]["kaggle_handle"]
                for name in (row.classes[0] for row in families.FAMILIES.values())
                if preset in (known := getattr(keras_hub.models, name).presets)
            ),
            None,
        )
    if address is None:
        return None, False
    folder = Path(get_cached_path(parse_model_handle(address.removeprefix("kaggle://"))))
    return folder, any(folder.glob("*.weights.*"))


def _refuse_download(wanted: Wanted, handle: str) -> None:
    """Refuses a preset that is not in Kaggle's cache, where nothing may be fetched.

    Raises:
        UserError: it is not.
    """
    folder, is_there = cached_folder(handle)
    if folder is None:
        raise wanted.error("offline, and KerasHub does not say where it is kept")
    if not is_there:
        raise wanted.error(f"offline, and it is not in Kaggle's cache ({folder})")
