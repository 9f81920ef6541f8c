"""The default command on each backend: `python benchmarks/default_run.py`."""

import argparse
import tempfile
from pathlib import Path

import runs

PRESETS = ("resnet_nano", "vit_nano")


def main():
    """Runs both nano presets on drawn_dogs on every backend that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            runs.train(backend, Path(folder) / f"{backend}-{preset}", "--preset", preset)
            for preset in flags.presets
            for backend in flags.backends
        ]
    runs.write("default_run", rows)


if __name__ == "__main__":
    main()
