"""Real dogs, real weights, each backend: `python benchmarks/real_sample.py --sample FOLDER --weights FOLDER`."""

import argparse
import tempfile
from pathlib import Path

import runs


def main():
    """Linear probes of the real ResNet-50 and of the ViT-S/14."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    flags = parser.parse_args()
    presets = {
        "resnet50": f"applications:resnet50:{flags.weights / 'resnet50_imagenet1k_fp16.weights.h5'}",
        "vits14": flags.weights / "dinov2_vits14_hf",
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            runs.train(
                backend,
                Path(folder) / f"{backend}-{name}",
                "--preset",
                preset,
                "--dataset",
                flags.sample,
                "--linear-probe",
                "--canvas-size",  # the size of the crops: nothing is gained by resizing them twice
                "224",
            )
            for name, preset in presets.items()
            for backend in flags.backends
        ]
    for row in rows:  # where the folders lie on this machine is nobody's business
        row["flags"] = [Path(flag).name if "/" in flag else flag for flag in row["flags"]]
    runs.write("real_sample", rows)


if __name__ == "__main__":
    main()
