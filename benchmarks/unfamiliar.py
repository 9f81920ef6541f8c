"""Which score tells strangers from breeds: `python benchmarks/unfamiliar.py --sample FOLDER --weights FOLDER`.

Linear probes learn 100 of the sample's 120 breeds. Strangers are real dogs of the other 20, and drawn dogs. Each score
is computed of test pictures of the 100 and of the strangers; the table has the area under the ROC curve, and the share
of strangers found where 5 % of validation pictures are called strangers. A row of sets says how many of the test
pictures have their breed in the 90 % set.
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import runs
import scipy.stats
from real_sample import RESNET
from real_sample import VIT

from keras_dogs.data.datasets.drawn_dogs import write_drawn_dogs
from keras_dogs.evaluation import trust
from keras_dogs.evaluation.calibration import calibration_of
from keras_dogs.evaluation.predictions import Predictions

HELD_OUT = 6  # every sixth breed
SPLITS = ("train", "validation", "test")


def main():
    """Measures a row for each model and kind of stranger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--sets", type=Path, metavar="RUN", help="measure the sets of this run alone")
    parser.add_argument("--features", nargs=2, type=Path, metavar=("RUN", "STRANGERS"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.features:
        return features(*flags.features)
    rows = []
    if flags.sets:
        rows = [{"model": f"ResNet-50, {flags.sets.name}", **row} for row in sets(flags.sets)]
        return runs.write("unfamiliar", rows, line=in_words, key=("model", "strangers", "score"))
    with tempfile.TemporaryDirectory() as folder:
        known, strangers = divide(flags.sample.resolve(), Path(folder))
        for name, file in (("ResNet-50", RESNET), ("ViT-S/14", VIT)):
            preset = f"applications:resnet50:{flags.weights / file}" if file == RESNET else str(flags.weights / file)
            run = Path(folder) / f"run-{file}"
            trained = runs.train(flags.backend, run, "--preset", preset, "--dataset", known, "--linear-probe")
            given = ["--sample", flags.sample, "--weights", flags.weights, "--features", run, strangers]
            failed = trained.get("error") or runs.measure(flags.backend, __file__, *given).get("error")
            found = [{"error": failed}] if failed else score(run)
            rows += [{"model": name, "backend": flags.backend, **row} for row in found]
    runs.write("unfamiliar", rows, line=in_words, key=("model", "strangers", "score"))


def divide(sample: Path, folder: Path) -> tuple[Path, Path]:
    """Writes the lists of the breeds that are learned, and gathers the strangers; returns both folders."""
    known, strangers = folder / "known", folder / "strangers"
    (known / "lists").mkdir(parents=True)
    (known / "Images").symlink_to(sample / "Images")
    (strangers / "other breeds").mkdir(parents=True)
    lists = {split: (sample / "lists" / f"{split}_list.txt").read_text().split() for split in ("train", "test")}
    breeds = sorted({line.partition("/")[0] for line in lists["test"]})
    others = set(breeds[::HELD_OUT])
    for split, lines in lists.items():
        kept = [line for line in lines if line.partition("/")[0] not in others]
        (known / "lists" / f"{split}_list.txt").write_text("".join(f"{line}\n" for line in kept))
        for line in set(lines) - set(kept):
            (strangers / "other breeds" / Path(line).name).symlink_to(sample / "Images" / line)
    write_drawn_dogs(strangers / "drawn dogs", 0 + 1, 40, seed=0)
    return known, strangers


def features(run: Path, strangers: Path) -> None:
    """Writes the features and logits of all pictures beside the run: the child's part."""
    from keras_dogs import backends

    backends.select()
    from keras_dogs.data.datasets import load_dataset
    from keras_dogs.data.datasets.opening import open_picture
    from keras_dogs.data.datasets.opening import to_canvas
    from keras_dogs.data.loaders.batches import predict_in_batches
    from keras_dogs.data.loaders.canvases import load_canvases
    from keras_dogs.evaluation.inference import find_pictures
    from keras_dogs.models.builders import load_classifier
    from keras_dogs.models.submodels import feature_extractor
    from keras_dogs.runs.records import RunRecord

    record, classifier = RunRecord.load(run / "record.json"), load_classifier(run / "model.keras")
    data = record.config["data"]
    dataset = load_dataset(data["dataset"], record.seed, data["validation_fraction"], None)
    extractor, arrays = feature_extractor(classifier), {}
    kernel, bias = (np.asarray(variable) for variable in classifier.head.get_weights())
    parts = [
        (split, canvases.images, canvases.labels)
        for split, canvases in zip(SPLITS, load_canvases(dataset, SPLITS, **classifier.canvas))
    ]
    for folder in sorted(strangers.iterdir()):
        files = find_pictures([str(folder)])
        canvases = np.stack([to_canvas(open_picture(file), **classifier.canvas) for file in files])
        parts.append((folder.name, canvases, np.full(len(files), -1)))
    for name, images, labels in parts:
        found, _ = predict_in_batches(extractor, images, 32)
        arrays |= {f"{name}/features": found, f"{name}/labels": labels, f"{name}/logits": found @ kernel + bias}
    np.savez(run / "features.npz", **arrays)
    print("{}")


def score(run: Path) -> list[dict]:
    """Computes each score, the greater the stranger; returns a row a score and kind of strangers."""
    from sklearn.metrics import roc_auc_score

    arrays = np.load(run / "features.npz")
    parts = {name.rpartition("/")[0] for name in arrays.files}
    scores = {part: scores_of(arrays, part) for part in parts}
    rows = []
    for strangers in sorted(parts - set(SPLITS)):
        for name in scores["test"]:
            known, strange = scores["test"][name], scores[strangers][name]
            threshold = np.quantile(scores["validation"][name], 0.95)
            labels = np.r_[np.zeros(len(known)), np.ones(len(strange))]
            rows.append(
                {
                    "strangers": strangers,
                    "score": name,
                    "num_known": len(known),
                    "num_strangers": len(strange),
                    "auroc": float(roc_auc_score(labels, np.r_[known, strange])),
                    "strangers_found": float((strange > threshold).mean()),
                    "known_refused": float((known > threshold).mean()),
                }
            )
    return [*rows, *sets(run)]


def sets(run: Path) -> list[dict]:
    """Computes how often the sets of a run hold the breed of its test pictures; returns a row a coverage."""
    found, rows = Predictions.load(run), []
    calibration = calibration_of(run)
    for promised in (0.8, 0.9, 0.95):
        sizes, held = trust.sets_of(found, calibration, promised)
        num, place = calibration.num_pictures, math.ceil((calibration.num_pictures + 1) * promised)
        low, high = scipy.stats.betabinom.interval(0.95, len(held), place, num + 1 - place)
        rows.append(
            {
                "strangers": "none",
                "score": f"sets of {promised:g}",
                "promised": promised,
                "held": float(held.mean()),
                "band": (low / len(held), high / len(held)),
                "mean_size": float(sizes.mean()),
                "num_known": len(held),
                "num_validation": calibration.num_pictures,
            }
        )
    return rows


def scores_of(arrays, part: str) -> dict[str, np.ndarray]:
    """Returns each score of the pictures of a part, `(num_pictures,)`."""
    from scipy.special import logsumexp
    from scipy.special import softmax

    logits, found = arrays[f"{part}/logits"].astype(float), arrays[f"{part}/features"].astype(float)
    features, labels = arrays["train/features"].astype(float), arrays["train/labels"]
    means = np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    spread = (features - means[labels]).T @ (features - means[labels]) / len(labels)
    shrunk = 0.9 * spread + 0.1 * np.eye(len(spread)) * np.trace(spread) / len(spread)
    factor = np.linalg.cholesky(np.linalg.inv(shrunk))
    centre = features.mean(axis=0)
    angle = unit(found - centre) @ unit(means - centre).T
    return {
        "1 - greatest probability": 1 - softmax(logits, axis=1).max(axis=1),
        "energy": -logsumexp(logits, axis=1),
        "greatest logit": -logits.max(axis=1),
        "distance to class means": distances(found @ factor, means @ factor),
        "angle to class means": -angle.max(axis=1),
    }


def distances(points, means) -> np.ndarray:
    """Returns the squared distance of each point to the nearest mean."""
    squares = (points**2).sum(axis=1)[:, None] - 2 * points @ means.T + (means**2).sum(axis=1)
    return squares.min(axis=1)


def unit(vectors) -> np.ndarray:
    """Returns vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    if "error" in row:
        return f"{row['model']}: {row['error']}"
    if "held" in row:
        kept = f"{row['held']:.1%} of the pictures, {row['mean_size']:.1f} breeds"
        return f"{row['model']}: sets of {row['promised']:.0%} hold the breed of {kept}"
    return (
        f"{row['model']}, {row['strangers']}, {row['score']}: AUROC {row['auroc']:.3f}, "
        f"{row['strangers_found']:.1%} of strangers and {row['known_refused']:.1%} of the known are refused"
    )


if __name__ == "__main__":
    main()
