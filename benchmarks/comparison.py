"""Keep a comparison among the results: `python benchmarks/comparison.py NAME FOLDER`, FOLDER written by `compare`.

The comparisons that are kept were made with:

    embedded     python -m keras_dogs.compare --pair embedded --seeds 0 1 2
    real_sample  python -m keras_dogs.compare --dataset SAMPLE --train-flags="--linear-probe" --presets
                 applications:resnet50:WEIGHTS/resnet50_imagenet1k_fp16.weights.h5
                 the same with --train-flags="--linear-probe --image-size 224" --presets WEIGHTS/dinov2_vits14_hf
                 python -m keras_dogs.compare --from the six runs of these
    full_fine_tuning  python -m keras_dogs.compare --from the runs that `full_fine_tuning.py` keeps
"""

import argparse
import json
from pathlib import Path

import runs

from keras_dogs.comparison import schema


def main():
    """Copies `results.json`, with the machine in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["embedded", "real_sample", "full_fine_tuning"])
    parser.add_argument("folder", type=Path)
    flags = parser.parse_args()
    # Where it lay is of no interest to others.
    found = json.loads(json.dumps(schema.read(flags.folder / schema.FILE)).replace(f"{flags.folder}/", "comparison/"))
    rows = [{**row, "versions": next(iter(_versions(found, row["backend"])), {})} for row in found["groups"]]
    runs.write(f"comparison_{flags.name}", rows, summary={"comparison": found}, line=in_words)


def _versions(found: dict, backend: str):
    return (run["versions"] for run in found["runs"] if run.get("backend") == backend and "versions" in run)


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return f"top-1 {row['top1']['mean']:.1%} in {row['total_s']['mean']:.0f} s"


if __name__ == "__main__":
    main()
