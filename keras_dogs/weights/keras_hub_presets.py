"""KerasHub presets: by name, `kaggle://`, `hf://`, or a local folder (a KerasHub preset or a Hugging Face checkpoint).

Hugging Face checkpoints go through KerasHub's own converter.
"""

import json
from pathlib import Path

import keras
import keras_hub

from keras_dogs.errors import UserError
from keras_dogs.presets import CONVERSIONS
from keras_dogs.presets import EMBEDDED_FOLDER
from keras_dogs.presets import FAMILY_CONVERSIONS
from keras_dogs.presets import PRESETS
from keras_dogs.presets import VIT_FAMILIES
from keras_dogs.presets import Preset
from keras_dogs.weights.loaded import Loaded

_FAMILY_OF_CLASS = {
    "ViTBackbone": "vit",
    "DeiTBackbone": "deit",
    "DINOV2Backbone": "dinov2",
    "ResNetBackbone": "resnet",
}
_CLASS_OF_FAMILY = {family: name for name, family in _FAMILY_OF_CLASS.items()}


def matches(preset: str) -> bool:
    """Whether `preset` is a name of the table, a remote handle, or a folder."""
    return preset in PRESETS or preset.startswith(("kaggle://", "hf://")) or Path(preset).is_dir()


def load(preset: str, image_size: int | None, load_weights: bool, dtype, with_head: bool) -> Loaded:
    """Loads a backbone; see `weights.load_backbone`."""
    row = PRESETS.get(preset)
    if row and not load_weights:
        return _build_from_table(row, image_size or row.image_size, dtype)
    if row and row.source is None:
        published = [name for name, other in PRESETS.items() if other.source and name.startswith(preset)]
        hint = f"; {' and '.join(published[:2])} have" if published else ""
        raise UserError(
            f"--preset {preset}: an architecture without published weights (load_weights=False builds it){hint}"
        )
    handle = str(EMBEDDED_FOLDER / preset) if row and row.source == "embedded" else preset
    if Path(handle).is_dir():
        _check_folder(preset, Path(handle))
    return _load_preset(preset, handle, image_size, load_weights, dtype, with_head)


def _build_from_table(row: Preset, image_size: int, dtype) -> Loaded:
    backbone_class = getattr(keras_hub.models, _CLASS_OF_FAMILY[row.family])
    _check_patch_size(image_size, row.architecture.get("patch_size"))
    backbone = backbone_class(image_shape=(image_size, image_size, 3), dtype=dtype, **row.architecture)
    return Loaded(backbone, row.family, image_size, *CONVERSIONS[row.conversion], _pooling(row.family))


def _load_preset(preset, handle, image_size, load_weights, dtype, with_head) -> Loaded:
    try:
        config = keras_hub.models.Backbone.from_preset(handle, load_weights=False).get_config()
        family = _FAMILY_OF_CLASS.get(_backbone_class_name(handle))
        if family is None:
            raise UserError(f"--preset {preset}: neither a ViT nor a ResNet but a {_backbone_class_name(handle)}")
        shape = _image_shape(preset, family, config, image_size)
        backbone = keras_hub.models.Backbone.from_preset(
            handle, load_weights=load_weights, dtype=dtype, image_shape=(shape, shape, 3)
        )
        pooling, head = _load_head(preset, handle) if with_head else (_pooling(family), None)
        return Loaded(backbone, family, shape, *_load_conversion(handle, family), pooling, head)
    except (ValueError, TypeError, KeyError, OSError, ImportError, AttributeError) as error:
        reason = next(line for line in [*str(error).splitlines(), type(error).__name__] if line.strip())
        raise UserError(f"--preset {preset}: KerasHub cannot load it: {reason}") from error


def _backbone_class_name(handle: str) -> str:
    return type(keras_hub.models.Backbone.from_preset(handle, load_weights=False)).__name__


def _image_shape(preset: str, family: str, config: dict, image_size: int | None) -> int:
    """The side to build for: any for ResNet and DINOv2, which resamples its own position embeddings."""
    own = config["image_shape"][0]
    if family == "dinov2":
        _check_patch_size(image_size or 224, config["patch_size"])
        return image_size or 224
    if family in VIT_FAMILIES and image_size not in (None, own):
        raise UserError(
            f"--image-size {image_size}: the position embeddings of {preset} are for {own} x {own}; give {own}"
        )
    return image_size or own or 224


def _check_patch_size(image_size: int, patch_size) -> None:
    patch = patch_size[0] if isinstance(patch_size, (tuple, list)) else patch_size
    if patch and image_size % patch:
        below = image_size // patch * patch
        near = " or ".join(str(size) for size in (below, below + patch) if size)
        raise UserError(f"--image-size {image_size}: not a multiple of the patch size {patch}; the nearest are {near}")


def _pooling(family: str) -> str:
    return "token" if family in VIT_FAMILIES else "average"


def _load_conversion(handle: str, family: str):
    """The preset's own scale and offset; the family's where it brings none."""
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(handle)
    except (ValueError, FileNotFoundError):
        converter = None
    if converter is None:
        return CONVERSIONS[FAMILY_CONVERSIONS[family]]
    return _three(converter.scale, 1.0), _three(converter.offset, 0.0)


def _three(value, default: float) -> tuple[float, ...]:
    values = [default] if value is None else [float(number) for number in keras.ops.convert_to_numpy(value).reshape(-1)]
    return tuple(values * 3 if len(values) == 1 else values)


def _load_head(preset: str, handle: str):
    """Pooling and Dense weights of the preset's own classifier."""
    try:
        task = keras_hub.models.ImageClassifier.from_preset(handle, preprocessor=None)
        kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in task.output_dense.weights)
    except (ValueError, FileNotFoundError, AttributeError) as error:
        raise UserError(f"--preset {preset}: has no classifier of its own; give num_classes") from error
    return {"token": "token", "gap": "average", "avg": "average"}[task.pooling], (kernel, bias)


def _check_folder(preset: str, folder: Path) -> None:
    """One clear line for a folder that is no preset, before KerasHub fails deep inside."""
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(
            f"--preset {preset}: no preset in this folder; looked for config.json with model.weights.h5 (KerasHub) or "
            "model.safetensors (Hugging Face)"
        )
    try:
        json.loads(config.read_text())
    except ValueError as error:
        raise UserError(f"--preset {preset}: config.json is not valid JSON ({error})") from error
    if not any(folder.glob("*.weights.h5")) and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"--preset {preset}: config.json without weights; looked for model.weights.h5 or model.safetensors"
        )
