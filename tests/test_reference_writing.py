"""Folders that we write from runs, against what transformers, timm and KerasHub make of them, at real sizes."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import SHARED
from conftest import TORCHVISION
from conftest import is_installed

import keras_dogs
from keras_dogs.data.config import DataConfig
from keras_dogs.evaluation.inference import predict_pictures
from keras_dogs.exporting import checking_library
from keras_dogs.exporting import exporting
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune

MISSING = [name for name in ("torch", "transformers", "timm", "torchvision") if not is_installed(name)]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: tox -e reference has them")
LIBRARIES = Path(checking_library.__file__).parent / "libraries"
HELD = {
    "vit_tiny_patch16_224": ("transformers", "timm", "keras_hub"),
    "vit_small_patch16_224": ("transformers", "timm", "keras_hub"),
    "vit_base_patch16_224": ("transformers", "timm", "keras_hub"),
    "vit_with_fc_norm": ("timm",),
    "vit_with_gelu_tanh": ("transformers", "timm"),
    "deit_tiny_distilled_patch16_224": ("transformers", "timm", "keras_hub"),
    "dinov2_s": ("transformers", "timm"),
    "resnet18": ("transformers", "timm", "keras_hub"),
    "resnet50": ("transformers", "timm", "keras_hub"),
    "resnetv2_50": ("timm", "keras_hub"),
}


@pytest.fixture(autouse=True)
def with_torchvision(monkeypatch):
    """Lets child processes import torchvision."""
    monkeypatch.setenv("PYTHONPATH", str(TORCHVISION))


def ask(library: str, folder: Path, files: list[Path], work: Path) -> dict:
    """Returns pixels and logits of picture files, all by the library, in a process of its own."""
    code = (
        "import importlib.util, pathlib, sys\nimport numpy as np\n"
        "specification = importlib.util.spec_from_file_location('opened', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(specification)\nspecification.loader.exec_module(module)\n"
        "prepare, run, names = module.open_model(pathlib.Path(sys.argv[2]))\n"
        "pixels = np.stack([prepare(file) for file in sys.argv[4:]])\n"
        "np.savez(sys.argv[3], pixels=pixels, logits=run(pixels), names=names)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, LIBRARIES / f"{library}.py", folder, work, *files],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(work) as saved:
        return dict(saved)


def from_pixels(run: Path) -> keras.Model:
    """Returns the part of a run's classifier behind the conversion."""
    classifier = keras_dogs.load_classifier(run)
    return keras.Model(classifier.get_layer("conversion").output, classifier.output)


@pytest.mark.parametrize("name", HELD)
def test_a_run_goes_to_the_libraries(name, references, dogs, tmp_path):
    """From a training on this backend; on the library's own pixels, ours and its logits are the same."""
    run = tmp_path / "run"
    data = DataConfig(dataset=str(dogs))
    fine_tune(TrainConfig(preset=str(references / name), data=data, output=run, epochs=1, batch_size=8))
    files = sorted((dogs / "test").rglob("*.png"))[::4]
    ours = from_pixels(run)
    for library in HELD[name]:
        folder = tmp_path / library
        _, found = exporting.export_run(ExportConfig(run, format=library, output=folder, verify_pictures=9))
        checked = found["verification"]
        assert checked["largest_difference"] <= 1e-4 * checked["largest_logit"] and checked["num_pictures"] == 9
        theirs = ask(library, folder, files, tmp_path / f"{library}.npz")
        expected = keras.ops.convert_to_numpy(ours(theirs["pixels"], training=False))
        assert np.abs(theirs["logits"] - expected).max() <= 1e-4 * np.abs(expected).max()
        assert list(theirs["names"]) == found["class_names"]
        again = keras_dogs.build_classifier(str(folder), num_classes=None, augmentation="none")
        pixels = keras.Model(again.get_layer("conversion").output, again.output)(theirs["pixels"], training=False)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(pixels), expected)


def test_the_pipeline_of_transformers_takes_the_folder(references, dogs, tmp_path):
    run = tmp_path / "run"
    fine_tune(
        TrainConfig(
            preset=str(references / "vit_tiny_patch16_224"),
            data=DataConfig(dataset=str(dogs)),
            output=run,
            epochs=1,
            batch_size=8,
        )
    )
    exporting.export_run(ExportConfig(run, format="transformers", output=tmp_path / "folder", verify_pictures=3))
    file = next((dogs / "test").rglob("*.png"))
    code = (
        "import sys, transformers\n"
        "classify = transformers.pipeline('image-classification', sys.argv[1])\n"
        "print(*(f\"{row['label']}={row['score']:.6f}\" for row in classify(sys.argv[2])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, tmp_path / "folder", file], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = dict(pair.split("=") for pair in done.stdout.split())
    assert told.keys() == set(keras_dogs.load_classifier(run).class_names)
    assert abs(sum(map(float, told.values())) - 1) < 1e-4


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_real_vit_goes_to_both(dogs, tmp_path):
    """DINOv2's own weights, at 98 pixels: positions are those of the run, not of 518."""
    run = tmp_path / "run"
    preset = str(SHARED / "weights" / "dinov2_vits14_hf")
    data = DataConfig(dataset=str(dogs))
    fine_tune(TrainConfig(preset=preset, data=data, output=run, epochs=1, batch_size=8, image_size=98))
    files = sorted((dogs / "test").rglob("*.png"))
    ours = list(predict_pictures(keras_dogs.load_classifier(run), files))
    for library in ("transformers", "timm"):
        folder = tmp_path / library
        _, found = exporting.export_run(ExportConfig(run, format=library, output=folder, verify_pictures=9))
        assert found["verification"]["agreement"] >= 8 / 9
        assert ask(library, folder, files[:2], tmp_path / "asked.npz")["pixels"].shape == (2, 98, 98, 3)
    assert len(ours) == len(files)
