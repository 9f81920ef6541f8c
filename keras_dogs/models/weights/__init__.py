"""Where weights come from: one file a source. `load_backbone` looks at what the preset is, and asks the right one.

| the preset is | file |
|---|---|
| a run folder or a `.keras` file of ours | `own_models.py` |
| `applications:resnet50[:FILE]` | `keras_applications.py` |
| an `.npz`, `gs://...`, `https://...npz`, a handle of TF Hub | `google_npz.py` |
| `hf://...` or a folder with a `config.json` of transformers | `hugging_face.py` |
| `hf://timm/...`, a folder with a `config.json` of timm, a `.safetensors` or `.pth` file | `timm.py` |
| a name of the table, `kaggle://...`, a folder that KerasHub saved | `keras_hub_presets.py` |
"""

from pathlib import Path

import keras
import numpy as np

from keras_dogs import backends
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.models.initialization import no_initializers
from keras_dogs.models.initialization import seeded_initializers
from keras_dogs.models.presets import PRESETS
from keras_dogs.models.presets import WEIGHT_SUFFIXES
from keras_dogs.models.presets import unknown_kind
from keras_dogs.models.presets import unknown_preset
from keras_dogs.models.weights import downloads
from keras_dogs.models.weights import google_npz
from keras_dogs.models.weights import hugging_face
from keras_dogs.models.weights import keras_applications
from keras_dogs.models.weights import keras_hub_presets
from keras_dogs.models.weights import own_models
from keras_dogs.models.weights import timm
from keras_dogs.models.weights.loaded import Head
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.runs import artifacts
from keras_dogs.system import reading

backends.keep_tensorflow_off_accelerators()  # KerasHub has imported it by now, if it could


def load_backbone(
    preset: str,
    image_size: int | tuple[int, int] | None = None,
    load_weights: bool = True,
    dtype=None,
    with_head: bool = False,
    seed: int = 0,
    positions: str | None = None,
) -> Loaded:
    """Loads a backbone with what its weights expect around it.

    Args:
        preset: str. See the table above.
        image_size: int, pair of ints (rows, columns) or `None`. Pixels; `None` is the preset's own.
        load_weights: bool. `False` builds the same architecture at random, without any network.
        dtype: str or `keras.DTypePolicy` or `None`. The backbone's dtype policy.
        with_head: bool. Also load the source's own classifier.
        seed: int. Decides random weights, on every backend in the same way.
        positions: str or `None`. How the positions of a ViT are brought to another size, a method of
            `resample_positions`; `None` is bicubic with antialiasing, and without for DINOv2, as in its own code.

    Raises:
        UserError: nothing is known by that name, or what is there cannot be loaded.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    wanted = Wanted(str(preset), tuple(size) if size else None, load_weights, dtype, with_head, positions)
    with no_initializers() if load_weights else seeded_initializers(seed):
        try:
            loaded = _load(wanted)
            if load_weights:
                _check_finite(wanted, loaded)
            return loaded
        except (KeyError, ValueError, TypeError) as error:  # what no source has foreseen is still the file's fault
            raise wanted.error(f"cannot be loaded: {type(error).__name__}: {first_line(error)}") from error


def _check_finite(wanted: Wanted, loaded: Loaded) -> None:
    """Refuses weights that hold NaN or infinity: training would be blamed for them."""
    for weight in loaded.backbone.weights:
        if not np.isfinite(np.asarray(keras.ops.convert_to_numpy(weight), np.float32)).all():
            raise wanted.error(f"the weight {weight.path} holds NaN or infinity; the file is damaged, or diverged")


def _load(wanted: Wanted) -> Loaded:
    preset, path = wanted.preset, Path(wanted.preset)
    if preset in PRESETS or preset.startswith("kaggle://"):
        return keras_hub_presets.load(wanted, preset)
    if preset.startswith("applications:"):
        return keras_applications.load(wanted)
    if preset.startswith("hf://"):
        return _load_folder(wanted, downloads.fetch_hugging_face(wanted, preset.removeprefix("hf://")))
    if address := downloads.address_of_npz(preset):
        loaded = google_npz.load(wanted, downloads.fetch_npz(wanted, address))
        return loaded._replace(notes=(*loaded.notes, f"weights of {address}")) if address != preset else loaded
    if model := artifacts.model_of(preset):
        return own_models.load(wanted, model)
    if path.is_dir():
        return _load_folder(wanted, path)
    if path.is_file():
        return _load_file(wanted, path)
    raise unknown_preset(preset)


def _load_file(wanted: Wanted, file: Path) -> Loaded:
    if file.suffix == ".npz":
        return google_npz.load(wanted, file)
    if file.suffix in WEIGHT_SUFFIXES:
        return timm.load(wanted, file, {})
    raise unknown_kind(wanted.preset)


def _load_folder(wanted: Wanted, folder: Path) -> Loaded:
    """Loads a folder by what its `config.json` says."""
    file = folder / "config.json"
    if not file.is_file():
        raise wanted.error(
            "no preset in this folder; looked for config.json with model.weights.h5 (KerasHub) or .safetensors "
            "(Hugging Face, timm), and for model.keras (a run of ours)"
        )
    try:
        config = reading.read_json(file, name=file.name)
    except UserError as error:
        raise wanted.error(error.args[0]) from error
    if "model_type" in config:
        return hugging_face.load(wanted, folder, config)
    if "architecture" in config:
        return timm.load(wanted, folder, config)
    return keras_hub_presets.load(wanted, str(folder))


__all__ = ["Head", "Loaded", "load_backbone"]
