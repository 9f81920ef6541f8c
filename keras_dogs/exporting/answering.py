"""Names the breeds in picture files with an exported model: the program behind `predict.py` in an exported folder."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from keras_dogs.data.datasets.naming import display_name
from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.evaluation.answers import UNFAMILIAR
from keras_dogs.evaluation.answers import order_of
from keras_dogs.evaluation.answers import set_of
from keras_dogs.evaluation.answers import threshold_for
from keras_dogs.evaluation.answers import unfamiliarity_of

BATCH_SIZE = 32


def read_canvases(files, canvas):
    """Opens picture files, and yields them in batches.

    Args:
        files: list of paths.
        canvas: dict. `size`, `fit` and `interpolation` of `to_canvas`.

    Yields:
        The files of a batch that could be read, their canvases (`None` if there are none), and a list of
        `(file, reason)` for the others.
    """
    for start in range(0, len(files), BATCH_SIZE):
        read, canvases, unread = [], [], []
        for file in files[start : start + BATCH_SIZE]:
            try:
                canvases.append(to_canvas(open_picture(file), **canvas))
                read.append(file)
            except UnreadablePicture as error:
                unread.append((file, str(error)))
        yield read, np.stack(canvases) if canvases else None, unread


def main(open_model):
    """Prints the most probable breeds of each picture, and returns the exit status.

    Args:
        open_model: function of the exported folder. It returns a function of a batch of canvases, which gives logits
            and probabilities, and the names of the classes.
    """
    parser = argparse.ArgumentParser(description="Names the breeds in pictures.")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--top-k", type=int, default=5, help="how many breeds to print for each picture (default: 5)")
    parser.add_argument(
        "--coverage", type=float, help="also print the set of breeds that holds the right one this often, 0.5 to 0.99"
    )
    flags = parser.parse_args()
    if flags.top_k < 1:
        parser.error("--top-k: must be at least 1")
    if flags.coverage is not None and not 0.5 <= flags.coverage <= 0.99:
        parser.error("--coverage: must be from 0.5 to 0.99")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names of files and classes may be in any script
    folder, status = Path(__file__).resolve().parent, 0  # an export copies this code into its folder
    try:
        facts = json.loads((folder / "export.json").read_text("utf-8"))
        canvas = facts["canvas"]
        run, names = open_model(folder)
    except Exception as error:  # each runtime raises exceptions of its own
        print(f"{folder}: the exported model cannot be opened: {error}", file=sys.stderr)
        return 1
    calibration = facts.get("calibration") or {}
    threshold = None
    if flags.coverage is not None:
        threshold = threshold_for(flags.coverage, calibration.get("set_thresholds", ()))
        if threshold is None:
            why = "a quantised export has no prediction sets; use one that is not quantised"
            if not facts.get("quantization"):
                why = "the run has too few validation pictures to promise that"
            parser.error(f"--coverage {flags.coverage:g}: {why}")
    for read, canvases, unread in read_canvases(flags.pictures, canvas):
        for file, why in unread:
            print(f"{file}: {why}", file=sys.stderr)
            status = 1
        for file, logits, probabilities in zip(read, *(run(canvases) if read else ((), ()))):
            print(file)
            print_answer(
                logits, probabilities, names, flags.top_k, calibration.get("strangeness_percentiles"), threshold
            )
    return status


def print_answer(logits, probabilities, names, top_k, percentiles, threshold):
    """Prints the answer for one picture."""
    if percentiles:
        share = unfamiliarity_of(logits[None], percentiles)[0]
        if share > UNFAMILIAR:
            print(f"  unfamiliar: stranger than {100 * share:.0f} % of the validation pictures; the nearest breeds:")
    for place in order_of(probabilities)[:top_k]:
        print(f"  {probabilities[place]:6.1%}  {display_name(names[place])}")
    if threshold is not None:
        inside = (display_name(names[place]) for place in set_of(probabilities, threshold))
        print(f"  the set: {', '.join(inside)}")
