"""What a comparison concludes, in the sentences at the top of its page."""

import itertools
import math

from keras_dogs.comparison import verdicts
from keras_dogs.comparison.schema import Results

_MOST_PAIRS = 3  # of models that have a sentence each


def headlines(found: Results) -> list[str]:
    """Answers the two questions of the page, a sentence each: which model, which backend."""
    sentences = []
    if len(found["between_models"]) > _MOST_PAIRS:
        sentences.append(_ranking(found))
    for row in found["between_models"] if not sentences else ():
        means = _means(found, row)
        better, worse = (row["first"], row["second"]) if row["difference"] > 0 else (row["second"], row["first"])
        names = f"{means[better]} of {row['num_pictures']:,} test pictures named correctly, against {means[worse]}"
        if row["num_seeds"] == 1:
            verdict = f"The run of {better} beats that of {worse}"
        else:
            verdict = f"{better} beats {worse}"
        if not row["significant"]:
            verdict = f"{better} and {worse} cannot be told apart"
        sentences.append(f"{verdict}: {names}.")
    if rows := found["between_backends"]:
        if any(row["significant"] for row in rows):
            sentences.append("Not every backend reaches the same accuracy: see below.")
        else:
            alike = _alike(found, rows)
            sentences.append(f"No two backends can be told apart in accuracy; they give the same answer on {alike}.")
    return sentences or ["There are no two models or backends to compare."]


def _ranking(found: Results) -> str:
    """Names many models in one sentence, best first, and says how many of their differences are significant."""
    named = "; ".join(f"{row['model']} {percent(row['top1']['mean'])}" for row in _best_first(found))
    pairs = found["between_models"]
    num = sum(row["significant"] for row in pairs)
    which = "All" if num == len(pairs) else f"{num} of the {len(pairs)}"
    return f"Best first, test top-1: {named}. {which} pairwise differences are significant."


def _means(found: Results, row: dict) -> dict[str, str]:
    """Returns the mean accuracy of two models over the backends and seeds that both have."""
    names = row["first"], row["second"]
    found_of = {name: [] for name in names}
    for pair in found["pairs"]:
        if {pair["first"], pair["second"]} == set(names):
            for name, accuracy in zip((pair["first"], pair["second"]), pair["accuracy"]):
                found_of[name].append(accuracy)
    return {name: percent(sum(each) / len(each)) for name, each in found_of.items()}


def in_short(found: Results) -> list[str]:
    """Returns the verdicts; backends that cannot be told apart share one sentence, the table below has each pair."""
    rows = found["between_models"]
    if len(rows) > _MOST_PAIRS:
        rows = _telling(found)
    sentences = [row["in_words"] for row in rows]
    of_one_seed = [sentence for sentence in sentences if sentence.endswith(verdicts.LUCK)]
    if len(of_one_seed) > 1:  # it is said once
        sentences = [sentence.removesuffix(f" {verdicts.LUCK}") for sentence in sentences]
        which = "each of these" if len(of_one_seed) == len(sentences) else f"{len(of_one_seed)} of these"
        sentences.append(f"With one seed for {which}, the influence of luck in training is not known.")
    if num_others := len(found["between_models"]) - len(rows):
        sentences.append(f"All other pairs ({num_others}) differ significantly; the table below has them.")
    sentences += [row["in_words"] for row in found["between_backends"] if row["significant"]]
    same = [row for row in found["between_backends"] if not row["significant"]]
    if same:
        names = " and ".join(dict.fromkeys(row["model"] for row in same))
        points = max(row["largest_difference"] for row in same)
        num, p_value = len(found["between_backends"]), min(row["adjusted_p_value"] for row in same)
        claim = "no two backends can" if len(same) == num else f"{len(same)} of {num} pairs of backends cannot"
        sentences.append(
            f"{names}: {claim} be told apart in accuracy (smallest adjusted p = {p_value:.2g}; top-1 differs by at "
            f"most {100 * points:.1f} points); they give the same answer on {_alike(found, same)}."
        )
    return sentences or ["There are no two models or backends to compare."]


def _telling(found: Results) -> list[dict]:
    """Returns the pairs of many models that tell most: each model and the next best, and those that tie."""
    ranked = [row["model"] for row in _best_first(found)]
    neighbours = [{first, second} for first, second in itertools.pairwise(ranked)]
    return [
        row for row in found["between_models"] if {row["first"], row["second"]} in neighbours or not row["significant"]
    ]


def _best_first(found: Results) -> list[dict]:
    return sorted(found["models"], key=lambda row: -row["top1"]["mean"])


def _alike(found: Results, rows: list[dict]) -> str:
    """Words the share of pictures that backends answer alike, the smallest of all seeds."""
    wanted = [(row["model"], row["backends"]) for row in rows]
    single = found["same_seed_on_two_backends"]
    least, *others = sorted(row["same_answers"] for row in single if (row["model"], row["backends"]) in wanted)
    if least == 1:
        return "every picture"
    return f"{'at least ' if others else ''}{math.floor(1000 * least) / 10:.1f} % of the pictures"


def percent(share: float) -> str:
    """Writes a share as a percentage with one decimal place."""
    return f"{100 * share:.1f} %"
