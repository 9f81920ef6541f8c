"""How long each stage of the input takes with 21 times as many files: `python benchmarks/input_at_scale.py --help`.

Each dataset is a folder of symbolic links to the sample's photographs, under new names. Each size is measured in a
process of its own: the list of the files is made; the first batch of 32 is decoded; the cache of canvases of 256 x 256
pixels is built; and it is opened again. The largest size needs 20 GB below `--folder`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import runs

SIZE, BATCH = 256, 32
PARTS = {
    "list_s": "listing files",
    "first_decoded_s": "first batch, decoded",
    "cache_s": "building the cache",
    "opened_s": "opening the cache",
    "first_mapped_s": "first batch, from the cache",
}


def main():
    """Measures a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 5, 21], help="links to each photograph")
    parser.add_argument("--folder", type=Path, help="where the links and the cache go (default: a temporary folder)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        measure(flags.measure)
        return
    rows = []
    for copies in flags.copies:
        with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
            link(flags.sample, Path(folder) / "dogs", copies)
            row = runs.measure("jax", __file__, "--sample", flags.sample, "--measure", Path(folder) / "dogs")
            rows.append({"backend": "-", "copies": copies, **row})
            print(row.get("error") or in_words(row), flush=True)
    runs.write("input_at_scale", rows, line=in_words)


def link(sample: Path, folder: Path, copies: int) -> None:
    """Fills `folder/CLASS` with `copies` links to each photograph of the sample."""
    for breed in (sample / "Images").iterdir():
        (folder / breed.name).mkdir(parents=True)
        for photograph in breed.iterdir():
            for number in range(copies):
                name = f"{photograph.stem}-{number}{photograph.suffix}"
                (folder / breed.name / name).symlink_to(photograph.resolve())


def measure(folder: Path) -> None:
    """Does the child's part: prints the seconds of each part, the size of the cache and the peak of memory."""
    from keras_dogs.data.datasets import load_dataset
    from keras_dogs.data.loaders.canvases import load_canvases
    from keras_dogs.data.loaders.stream import Undecoded
    from keras_dogs.system import caches
    from keras_dogs.system import posix

    splits = ("train", "validation", "test")
    row = {}

    def timed(part, function):
        began = time.perf_counter()
        found = function()
        row[part] = time.perf_counter() - began
        return found

    with caches.use(folder.parent / "cache"):
        dataset = timed("list_s", lambda: load_dataset(str(folder)))
        row["num_pictures"] = sum(len(getattr(dataset, split)) for split in splits)
        stream = Undecoded(dataset.train, SIZE, "squash")
        stream[:1]  # what the first picture imports has nothing to do with their number
        timed("first_decoded_s", lambda: stream[:BATCH])
        timed("cache_s", lambda: load_canvases(dataset, splits, SIZE))
        train, *_ = timed("opened_s", lambda: load_canvases(dataset, splits, SIZE))
        timed("first_mapped_s", lambda: train.images[:BATCH])
        written = sum(file.stat().st_size for file in (folder.parent / "cache").rglob("*") if file.is_file())
    row |= {"cache_gib": written / 2**30, "peak_memory_gib": posix.peak_memory_bytes() / 2**30}
    print(json.dumps(row))


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    parts = ", ".join(f"{words} {row[part]:.2f} s" for part, words in PARTS.items())
    return (
        f"{row['num_pictures']:,} pictures: {parts}; cache {row['cache_gib']:.1f} GiB, memory "
        f"{row['peak_memory_gib']:.2f} GiB"
    )


if __name__ == "__main__":
    main()
