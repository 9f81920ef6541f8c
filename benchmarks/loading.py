"""What it takes to load a ViT-B/16 from each source, beside the library it comes from: `python benchmarks/loading.py`.

The files are written with random weights first (`tests/write_references.py` needs transformers and timm). Every load is
a process of its own, imports left out: seconds, and how much its memory grew at the most over the file's size.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import runs

LOADS = """
import gc, json, resource, sys, time
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
{imports}
path = sys.argv[1]
before, began = peak(), time.perf_counter()
{load}
print(json.dumps(dict(seconds=time.perf_counter() - began, grown_mib=peak() - before)))
"""
OURS = (
    "from keras_dogs import backends\nbackends.select()\nimport numpy, keras_dogs\n"
    "from keras_dogs.models.weights import load_backbone\nload_backbone('vit_nano')",
    "load_backbone(path)",
)
HERE = "import sys\nsys.path.insert(0, 'benchmarks')\n"
TORCHVISION = HERE + "import peers\npeers.declare_torchvision()\n"
LIBRARIES = {
    "transformers": (
        TORCHVISION + "import transformers\ntransformers.ViTForImageClassification",
        # It maps the file and reads a weight when it is used; ours are all in memory when they are loaded.
        "model = transformers.ViTForImageClassification.from_pretrained(path)\n"
        "total = sum(float(weight.sum()) for weight in model.parameters())",
    ),
    "timm": (
        TORCHVISION + "import timm",
        "model = timm.create_model('vit_base_patch16_224', pretrained=True, num_classes=7, "
        "pretrained_cfg_overlay=dict(file=path + '/model.safetensors', num_classes=7))",
    ),
    "keras_hub": (
        "from keras_dogs import backends\nbackends.select()\nimport keras_hub",
        "model = keras_hub.models.Backbone.from_preset(path)",
    ),
    # vision_transformer's way: the model's variables first, by a compiled `init`, then the file's in their places.
    "flax": (
        HERE + "import jax, jax.numpy, numpy\nfrom peers_flax import ViT",
        "network = ViT(768, 12, 12, 1000, jax.numpy.float32)\n"
        "images = jax.numpy.zeros((1, 224, 224, 3))\n"
        "state = jax.jit(lambda key: network.init(key, images, training=False))(jax.random.key(0))\n"
        "with numpy.load(path) as file: arrays = {name: jax.device_put(file[name]) for name in file}\n"
        "jax.block_until_ready(arrays)",
    ),
    # NumPy alone: the least that anything could take that has the numbers in memory once.
    "numpy": ("import numpy", "with numpy.load(path) as file: arrays = {name: file[name] for name in file}"),
}
SOURCES = (
    ("vit_b16", "transformers"),
    ("vit_b16", "keras_hub"),  # which reads Hugging Face's folders, too
    ("vit_base_patch16_224", "timm"),
    ("keras_hub_preset", "keras_hub"),
    ("B_16.npz", "flax"),
    ("B_16.npz", "numpy"),
)
REPEATS = 3


def main():
    """Writes the files, loads each, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), help="measure these; the rest stays")
    parser.add_argument("--references", type=Path, help="a folder that tests/write_references.py wrote")
    flags = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        references = flags.references or Path(folder)
        if not flags.references:
            script = Path(__file__).parents[1] / "tests" / "write_references.py"
            subprocess.run([sys.executable, script, references], check=True)
        write_others(references, Path(folder), flags.backends[0])
        for source, library in (pair for pair in SOURCES if pair[1] in flags.libraries):
            path = (references if (references / source).exists() else Path(folder)) / source
            for backend in flags.backends:
                rows.append(compare(source, library, path, backend))
    runs.write("loading", rows, line=in_words, key=("backend", "model", "library"))


def write_others(references: Path, folder: Path, backend: str) -> None:
    """Writes a KerasHub preset and an .npz with the same weights as the folder of transformers."""
    code = (
        "import sys\nfrom keras_dogs import backends\nbackends.select()\nimport numpy as np\n"
        "from keras_dogs.models.weights import load_backbone, vits\n"
        "model = load_backbone(sys.argv[1]).backbone\nmodel.save_to_preset(sys.argv[2])\n"
        "arrays = {name: np.asarray(value.numpy()) for name, value in vits.weights('vit', model).items()}\n"
        "np.savez(sys.argv[3], **arrays)"
    )
    raw = folder / "raw.npz"
    command = [sys.executable, "-c", code, references / "vit_b16", folder / "keras_hub_preset", raw]
    subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)
    with np.load(raw) as ours:
        np.savez(folder / "B_16.npz", **dict(google_names(ours)))
    raw.unlink()


def google_names(ours):
    """Returns the arrays under the names of vision_transformer."""
    parts = {"fc1": "MlpBlock_3/Dense_0", "fc2": "MlpBlock_3/Dense_1"}
    parts |= {name: f"MultiHeadDotProductAttention_1/{name}" for name in ("query", "key", "value", "out")}
    parts |= {"norm1": "LayerNorm_0", "norm2": "LayerNorm_2"}
    kinds = {"kernel": "kernel", "bias": "bias", "gamma": "scale", "beta": "bias"}
    for name in ours:
        block, *rest = name.split(".")
        if block.isdigit():
            yield f"Transformer/encoderblock_{block}/{parts[rest[0]]}/{kinds[rest[1]]}", ours[name]
        elif name == "class_token":
            yield "cls", ours[name]
        elif name == "position":
            yield "Transformer/posembed_input/pos_embedding", ours[name][None]
        else:
            where = {"patch": "embedding", "norm": "Transformer/encoder_norm"}[block]
            yield f"{where}/{kinds[rest[0]]}", ours[name]


def compare(source: str, library: str, path: Path, backend: str) -> dict:
    """Ours and theirs in turn, a few times; a row."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in (".safetensors", ".h5")]
    size = sum(file.stat().st_size for file in files) / 2**20
    row = {"backend": backend, "model": f"ViT-B/16, {source}", "library": library, "file_mib": size}
    pairs = [(load(OURS, path, backend), load(LIBRARIES[library], path, backend)) for _ in range(REPEATS)]
    errors = [result["error"] for pair in pairs for result in pair if "error" in result]
    if errors:
        return {**row, "error": errors[0]}
    ours, theirs = zip(*pairs)
    return {
        **row,
        "seconds": sorted(result["seconds"] for result in ours),
        "library_seconds": sorted(result["seconds"] for result in theirs),
        "ratio": runs.spread([mine["seconds"] / other["seconds"] for mine, other in pairs]),
        "memory_over_file": max(result["grown_mib"] for result in ours) / size,
        "library_memory_over_file": max(result["grown_mib"] for result in theirs) / size,
    }


def load(how: tuple[str, str], path: Path, backend: str) -> dict:
    """Times one load in a process of its own."""
    return runs.measure(backend, "-c", LOADS.format(imports=how[0], load=how[1]), path)


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return (
        f"{row['seconds'][1]:.2f} s, {row['ratio']['median']:.2f} of {row['library']}'s; memory "
        f"{row['memory_over_file']:.2f} of the file ({row['library_memory_over_file']:.2f})"
    )


if __name__ == "__main__":
    main()
