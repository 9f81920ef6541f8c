"""What the data doctor finds of what was planted: `python benchmarks/checking.py --sample FOLDER --weights FOLDER`.

100 pictures of the sample's train list are changed in ten ways and put into its test list, and 100 others are put into
the folder of another breed. A row a way says how many are found; another says how many of the first 100 suspect labels
are wrong ones. `--same DATASET` compares what backends find there. `--peers` adds rows of cleanlab and imagededup,
where they are installed. `--scale` measures time and memory against the number of pictures, with made pictures and
features.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest.mock
from pathlib import Path

import numpy as np
import runs
from PIL import Image
from PIL import ImageDraw
from PIL import ImageEnhance
from PIL import ImageFont
from real_sample import RESNET

NUM_PLANTED = 100
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
_HIDDEN, _CLASSES = 2048, 120  # of a ResNet-50, and of Stanford Dogs


def _crop(picture, generator):
    width, height = round(0.92 * picture.width), round(0.92 * picture.height)
    left, top = generator.integers(picture.width - width + 1), generator.integers(picture.height - height + 1)
    return picture.crop((left, top, left + width, top + height))


def _watermark(picture, _):
    font = ImageFont.load_default(max(12, picture.height // 14))
    ImageDraw.Draw(picture).text((0.62 * picture.width, 0.9 * picture.height), "(c) dogs", fill="white", font=font)
    return picture


def _resize(picture, _):
    return picture.resize((round(0.6 * picture.width), round(0.6 * picture.height)))


# How a picture is changed, the suffix and the quality that it is saved with.
CHANGES = {
    "copy": None,
    "resized to 60 %": (_resize, ".jpg", 92),
    "JPEG of quality 30": (lambda picture, _: picture, ".jpg", 30),
    "mirrored": (lambda picture, _: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), ".jpg", 92),
    "cropped by 8 %": (_crop, ".jpg", 92),
    "20 % brighter": (lambda picture, _: ImageEnhance.Brightness(picture).enhance(1.2), ".jpg", 92),
    "grey": (lambda picture, _: picture.convert("L"), ".jpg", 92),
    "PNG of the JPEG": (lambda picture, _: picture, ".png", None),
    "turned by 3 degrees": (lambda picture, _: picture.rotate(3, Image.Resampling.BICUBIC), ".jpg", 92),
    "small watermark": (_watermark, ".jpg", 92),
}


def main():
    """Measures the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backends", nargs="*", default=["torch"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kept", nargs="+", type=Path, help="features in the cache, a file a backend, of what was planted"
    )
    parser.add_argument("--same", metavar="DATASET")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--scale-child", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.scale_child:
        return scale_child(flags.scale_child)
    rows = [scale(count) for count in SIZES] if flags.scale else []
    if flags.kept:
        rows += kept_rows(flags)
    rows += [same(flags.backends, flags.same)] if flags.same else []
    if flags.sample and not flags.kept:
        rows += planted(flags)
    runs.write("checking", rows, line=in_words, key=("what", "by", "backend", "kind", "num_pictures", "dataset"))


def in_words(row: dict) -> str:
    """Returns a row for the terminal."""
    return json.dumps(row)


def planted(flags) -> list[dict]:
    """Plants, checks on each backend, and counts."""
    rows, findings = [], {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "planted"
        changed, flipped = plant(flags.sample.resolve(), folder, flags.seed)
        preset = f"applications:resnet50:{flags.weights / RESNET}"
        alone = check(flags.backends[0], flags.sample, Path(made) / "alone")
        known = {frozenset(pair) for pair in _pairs(alone["groups"])}
        rows.append({"what": "sample", "by": "keras_dogs", **sample_row(alone)})
        for backend in flags.backends:
            found = check(backend, folder, Path(made) / backend, "--preset", preset)
            findings[backend] = found
            again = check(backend, folder, Path(made) / f"{backend}-again", "--preset", preset)
            pairs = {frozenset(pair) for pair in _pairs(found["groups"])}
            rows += rows_of_pairs(pairs, changed, flipped, known, "keras_dogs", backend)
            rows.append({**label_row(found, flipped), "by": "keras_dogs", "backend": backend})
            seconds = {"first": found["seconds"], "again": again["seconds"]}
            rows.append({"what": "time", "by": "keras_dogs", "backend": backend, **seconds})
        if len(flags.backends) > 1:
            rows.append({"what": "same", "by": "keras_dogs", "dataset": "planted", **sameness(findings)})
        if flags.peers:
            rows += peer_rows(folder, changed, known, flipped)
    return rows


def check(backend: str, dataset: Path, output: Path, *more) -> dict:
    """Runs the command, and returns what it found with the seconds that it took."""
    command = [sys.executable, "-m", "keras_dogs.check", str(dataset), "--output", str(output), *map(str, more)]
    began = time.perf_counter()
    subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)
    found = json.loads((output / "check.json").read_text())
    return {**found, "seconds": time.perf_counter() - began}


def plant(sample: Path, folder: Path, seed: int):
    """Writes the sample, its pictures as links, with what is planted.

    Returns:
        A list of `(change, name of the original, name of the changed)`, and a dict of each wrong name to the right one.
    """
    generator = np.random.default_rng(seed)
    lists = {split: (sample / "lists" / f"{split}_list.txt").read_text().split() for split in ("train", "test")}
    chosen = generator.permutation(lists["train"])
    originals, to_flip = chosen[:NUM_PLANTED], chosen[NUM_PLANTED : 2 * NUM_PLANTED]
    breeds = sorted({name.partition("/")[0] for name in chosen})
    flipped = {}
    for name in to_flip:
        breed = breeds[(breeds.index(name.partition("/")[0]) + generator.integers(1, len(breeds))) % len(breeds)]
        flipped[name] = f"{breed}/{name.rpartition('/')[2]}"
    for names in lists.values():
        for name in names:
            file = folder / "Images" / flipped.get(name, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.symlink_to(sample / "Images" / name)
    lists["train"] = [flipped.get(name, name) for name in lists["train"]]
    changed = []
    for number, name in enumerate(originals):
        change = list(CHANGES)[number % len(CHANGES)]
        changed.append((change, name, _change(folder / "Images", name, change, number, generator)))
        lists["test"].append(changed[-1][2])
    (folder / "lists").mkdir()
    for split, names in lists.items():
        (folder / "lists" / f"{split}_list.txt").write_text("".join(f"{name}\n" for name in names))
    return changed, {new: old for old, new in flipped.items()}


def _change(images: Path, name: str, change: str, number: int, generator) -> str:
    how, suffix, quality = CHANGES[change] or (None, ".jpg", None)
    planted_name = f"{name.partition('/')[0]}/planted_{number:03}{suffix}"
    if how is None:
        shutil.copy(images / name, images / planted_name)
    else:
        picture = how(Image.open(images / name).convert("RGB"), generator)
        picture.save(images / planted_name, **({"quality": quality} if quality else {}))
    return planted_name


def _pairs(groups) -> list[tuple[str, str]]:
    """Returns every pair of a group's members."""
    names = [[member["name"] for member in group["members"]] for group in groups]
    return [(one, other) for group in names for place, one in enumerate(group) for other in group[:place]]


def rows_of_pairs(pairs: set, changed, flipped: dict, known: set, by: str, backend: str = "") -> list[dict]:
    """Returns the recall of each change, and of all with the precision.

    A pair is right if it is of a picture and its change, or of the same pictures as one of `known`, by way of a change.
    """
    origin = {planted_name: name for _, name, planted_name in changed} | flipped
    rows, hits = [], []
    for kind in CHANGES:
        of_kind = [frozenset((name, other)) in pairs for change, name, other in changed if change == kind]
        hits += of_kind
        rows.append(
            {"what": "duplicates", "by": by, "backend": backend, "kind": kind, "recall": float(np.mean(of_kind))}
        )
    meant = {frozenset(origin.get(name, name) for name in pair) for pair in pairs}
    wrong = [pair for pair in meant if len(pair) == 2 and pair not in known]
    right = len(pairs) - len(wrong)
    total = {"recall": float(np.mean(hits)), "precision": right / max(len(pairs), 1), "num_wrong": len(wrong)}
    return [*rows, {"what": "duplicates", "by": by, "backend": backend, "kind": "all", **total}]


def kept_rows(flags) -> list[dict]:
    """Returns the rows of labels from features that were kept when the same pictures were planted before."""
    from keras_dogs.checking import labels
    from keras_dogs.checking import probe

    with tempfile.TemporaryDirectory() as made:
        changed, flipped = plant(flags.sample.resolve(), Path(made) / "planted", flags.seed)
    rows, findings = [], {}
    for backend, file in zip(flags.backends, flags.kept, strict=True):
        kept = np.load(file)
        names = kept["names"].tolist()
        place = {name: index for index, name in enumerate(names)}
        breeds = sorted({name.partition("/")[0].lower() for name in names})
        given = np.array([breeds.index(name.partition("/")[0].lower()) for name in names])
        together = [[place[name], place[planted_name]] for _, name, planted_name in changed]
        probabilities = probe.held_out_probabilities(kept["features"], given, together)
        suspects, _ = labels.find_suspects(probabilities, given)
        found = {"accuracy": float((probabilities.argmax(1) == given).mean())}
        found["suspects"] = [{"name": names[suspect.index]} for suspect in suspects]
        findings[backend] = {"facts": {}, "groups": [], "labels": found}
        rows.append({**label_row({"labels": found}, flipped), "by": "keras_dogs", "backend": backend})
    compared = {key: value for key, value in sameness(findings).items() if key != "duplicates"}
    return [*rows, {"what": "same", "by": "keras_dogs", "dataset": "planted, labels", **compared}]


def label_row(found: dict, flipped: dict) -> dict:
    """Returns how many of the first 100 suspects are planted."""
    names = [suspect["name"] for suspect in found["labels"]["suspects"]]
    return {
        "what": "labels",
        "first_100": len(flipped.keys() & set(names[:NUM_PLANTED])),
        "found": len(flipped.keys() & set(names)),
        "num_suspects": len(names),
        "accuracy": found["labels"]["accuracy"],
    }


def sample_row(found: dict) -> dict:
    """Counts what is in the sample as it is."""
    groups = found["groups"]
    return {
        "num_groups": len(groups),
        "num_leaks": sum(group["is_leak"] for group in groups),
        "num_conflicts": sum(group["has_conflict"] for group in groups),
        "tested_twice": sum(
            member["split"] == "test" for group in groups if group["is_leak"] for member in group["members"]
        ),
    }


def same(backends, dataset: str) -> dict:
    """Compares what backends find in a dataset."""
    with tempfile.TemporaryDirectory() as made:
        findings = {backend: check(backend, dataset, Path(made) / backend) for backend in backends}
    return {"what": "same", "by": "keras_dogs", "dataset": Path(dataset).name, **sameness(findings)}


def sameness(findings: dict) -> dict:
    """Says whether backends found the same: facts, groups of pictures, and suspect labels in their order."""
    first, *others = ({key: found[key] for key in ("facts", "groups")} for found in findings.values())
    suspects = [[each["name"] for each in found["labels"]["suspects"]] for found in findings.values()]
    return {
        "duplicates": all(first == other for other in others),
        "suspects": all(each == suspects[0] for each in suspects),
        "suspects_in_common": len(set.intersection(*map(set, suspects))),
        "num_suspects": [len(each) for each in suspects],
    }


def peer_rows(folder: Path, changed, known: set, flipped: dict) -> list[dict]:
    """Returns what other tools find, each as its guide has it."""
    rows = []
    if importlib.util.find_spec("imagededup"):
        rows += imagededup_rows(folder, changed, flipped, known)
    if importlib.util.find_spec("cleanlab"):
        rows.append(cleanlab_row(flipped))
    return rows


def imagededup_rows(folder: Path, changed, flipped: dict, known: set) -> list[dict]:
    """Returns what imagededup's perceptual hash finds at its default distance of 10 bits of 64."""
    # Its neural network is imported with it, and has no build for the PyTorch of CI; the hash does not need it.
    parts = ("torchvision", "torchvision.models", "torchvision.models.vision_transformer", "torchvision.transforms")
    for name in parts:
        sys.modules.setdefault(name, unittest.mock.MagicMock())
    from imagededup.methods import PHash

    hashes = PHash(verbose=False)
    encodings = {}
    for file in sorted((folder / "Images").rglob("*.*")):
        name = file.relative_to(folder / "Images").as_posix()
        encodings[name] = hashes.encode_image(image_file=str(file))
    found = hashes.find_duplicates(encoding_map=encodings)
    pairs = {frozenset((name, other)) for name, others in found.items() for other in others}
    return rows_of_pairs(pairs, changed, flipped, known, "imagededup PHash")


def cleanlab_row(flipped: dict) -> dict:
    """Returns what cleanlab finds with logistic regression on the same features, in five folds, as its guide has it."""
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    from keras_dogs.system import caches

    newest = max(caches.folder("features").glob("*.npz"), key=lambda file: file.stat().st_mtime)
    kept = np.load(newest)
    names, features = kept["names"].tolist(), kept["features"]
    breeds = sorted({name.partition("/")[0] for name in names})
    labels = np.array([breeds.index(name.partition("/")[0]) for name in names])
    features = (features - features.mean(0)) / features.std()
    model = LogisticRegression(max_iter=200)
    probabilities = cross_val_predict(model, features, labels, cv=5, method="predict_proba")
    order = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence")
    found = [names[index] for index in order]
    return {
        "what": "labels",
        "by": "cleanlab, logistic regression",
        "first_100": len(flipped.keys() & set(found[:NUM_PLANTED])),
        "found": len(flipped.keys() & set(found)),
        "num_suspects": len(found),
        "accuracy": float((probabilities.argmax(1) == labels).mean()),
    }


def scale(count: int) -> dict:
    """Measures a number of pictures in a process of its own."""
    return {"what": "scale", "by": "keras_dogs", **runs.measure("torch", __file__, "--scale-child", count)}


def scale_child(count: int) -> None:
    """Measures how long made pictures and features take, without reading and without a backbone."""
    from keras_dogs.checking import duplicates
    from keras_dogs.checking import labels
    from keras_dogs.checking import probe
    from keras_dogs.checking.looks import SIDE
    from keras_dogs.checking.looks import Look
    from keras_dogs.system.posix import peak_memory_bytes

    generator = np.random.default_rng(0)
    grey = np.concatenate([_made_pictures(generator, min(5000, count - start)) for start in range(0, count, 5000)])
    looks = [
        Look(index.to_bytes(4), index.to_bytes(4), "JPEG", SIDE, SIDE, 1, False, 128.0, 50.0) for index in range(count)
    ]
    given = generator.integers(_CLASSES, size=count)
    features = generator.normal(size=(_CLASSES, _HIDDEN)).astype(np.float32)[given]
    for start in range(0, count, 5000):
        features[start : start + 5000] += 8 * generator.normal(size=features[start : start + 5000].shape)
    before, began = peak_memory_bytes(), time.perf_counter()
    groups = duplicates.find_groups(looks, grey)
    compared = time.perf_counter()
    labels.find_suspects(probe.held_out_probabilities(features, given, []), given)
    ended = time.perf_counter()
    sizes = {"gib_before": before / 2**30, "gib_more": (peak_memory_bytes() - before) / 2**30}
    times = {"duplicates_s": compared - began, "labels_s": ended - compared}
    print(json.dumps({"num_pictures": count, "num_groups": len(groups), **times, **sizes}))


def _made_pictures(generator, count: int) -> np.ndarray:
    """Returns noise with the spectrum of photographs, uint8 `(count, 64, 64)`."""
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.rfftfreq(64), indexing="ij"))
    spectrum = generator.normal(size=(count, 64, 33)) + 1j * generator.normal(size=(count, 64, 33))
    noise = np.fft.irfft2(spectrum / np.maximum(frequencies, 1 / 64), s=(64, 64))
    noise = (noise - noise.mean((1, 2), keepdims=True)) / noise.std((1, 2), keepdims=True)
    return (128 + 50 * noise).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
