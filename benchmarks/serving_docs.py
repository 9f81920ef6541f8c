"""Writes the tables of `docs/serving.md` from the results: `python benchmarks/serving_docs.py`."""

import json
import statistics
from pathlib import Path

import predicting
import runs

from keras_dogs.system.pages import table

PAGE = Path(__file__).parents[1] / "docs" / "serving.md"


def main():
    """Writes the page."""
    PAGE.write_text(insert(PAGE.read_text()))


def insert(page: str) -> str:
    """Returns the page with the tables of the newest results."""
    for mark, make in (
        ("strangers", of_strangers),
        ("sets", of_sets),
        ("load", of_load),
        ("ratio", of_ratio),
        ("folders", of_folders),
    ):
        page = runs.put_between(page, mark, make())
    return page


def rows_of(name: str) -> list[dict]:
    """Returns the rows of a result, of the last machine by name; none where it was not measured."""
    files = sorted(runs.RESULTS.glob(f"{name}-*.json"))
    return json.loads(files[-1].read_text())["rows"] if files else []


def rows_of_all_machines(name: str) -> list[dict]:
    """Returns the rows of every machine, each with its `machine` in words."""
    found = []
    for file in sorted(runs.RESULTS.glob(f"{name}-*.json")):
        result = json.loads(file.read_text())
        machine = (
            f"{result['machine']['processor'].split()[0].partition('(')[0]}, {result['machine']['vectors'].upper()}"
        )
        found += [{**row, "machine": machine} for row in result["rows"]]
    return found


def of_strangers() -> str:
    """Returns the table of scores against kinds of strangers."""
    rows = [row for row in rows_of("unfamiliar") if "auroc" in row]
    columns = list(dict.fromkeys((row["model"], row["strangers"]) for row in rows))
    found = {(row["score"], row["model"], row["strangers"]): row for row in rows}
    cells = []
    for score in dict.fromkeys(row["score"] for row in rows):
        those = [found[score, *column] for column in columns]
        mean = sum(each["auroc"] for each in those) / len(those)
        cells.append([score, *(f"{each['auroc']:.3f}" for each in those), f"{mean:.3f}"])
    for what, field in (("called unfamiliar", "strangers_found"), ("known ones called unfamiliar", "known_refused")):
        those = [found["greatest logit", *column] for column in columns]
        cells.append([what, *(f"{100 * each[field]:.0f} %" for each in those), ""])
    header = [f"{model}, {strangers}" for model, strangers in columns]
    return table(["score", *header, "mean"], cells)


def of_sets() -> str:
    """Returns the table of how often sets hold the right breed."""
    cells = [
        [
            row["model"],
            f"{100 * row['promised']:.0f} %",
            f"{100 * row['held']:.1f} %",
            f"{100 * row['band'][0]:.1f} to {100 * row['band'][1]:.1f} %",
            f"{row['mean_size']:.1f}",
        ]
        for row in rows_of("unfamiliar")
        if "held" in row
    ]
    return table(["model", "promised", "kept", "expected of so many pictures, 95 %", "breeds a set"], cells)


def of_load() -> str:
    """Returns the table of what the server carries."""
    cells = []
    for row in rows_of("serving"):
        steady, overload, memory = row["steady"], row["overload"], row["memory"]
        refused = overload["statuses"].get("503", 0) / sum(overload["statuses"].values())
        cells.append(
            [
                f"{row['model']}, {runs.PROSE[row['backend']]}",
                f"{steady['images_per_second']:.0f}",
                f"{row['of_predict']:.2f}",
                f"{row['gain_of_batches']:.2f}",
                f"{steady['p50_ms']:.0f} / {steady['p99_ms']:.0f} ms",
                f"{overload['sent_per_second']:.0f}",
                f"{100 * refused:.0f} %",
                f"{overload['p99_ms']:.0f} ms",
                f"{overload['lost']} / {sum(part.get('wrong', 0) for part in row.values() if isinstance(part, dict))}",
                f"{100 * memory['growth']:+.1f} %" if memory["requests"] > 19_000 else "–",
            ]
        )
    header = [
        "",
        "pictures/s",
        "of predict",
        "gain of batches",
        "p50 / p99",
        "overload: sent/s",
        "refused",
        "p99 there",
    ]
    return table([*header, "lost / wrong", "memory"], cells)


def of_ratio() -> str:
    """Returns the table of the server's rate beside that of `predict`, measured in turns."""
    cells = [
        [
            f"{row['model']}, {runs.PROSE[row['backend']]}",
            f"{statistics.median(turn['server'] for turn in row['turns']):.1f}",
            f"{row['ratio']['median']:.2f} ({row['ratio']['min']:.2f} to {row['ratio']['max']:.2f})",
            str(row["wrong"]),
        ]
        for row in rows_of("serving_ratio")
    ]
    return table(["", "pictures/s", "of predict, in turns", "wrong"], cells) if cells else ""


def of_folders() -> str:
    """Returns the table of large folders."""
    cells = [
        [
            f"{row['model']}, {runs.PROSE[row['backend']]}",
            row["machine"],
            f"{row.get('count', predicting.NUM_PICTURES):,}",
            f"{row['turns'][-1]['predict']:.0f}",
            f"{row['ratio']['median']:.2f} ({row['ratio']['min']:.2f} to {row['ratio']['max']:.2f})",
            f"{row['turns'][-1]['resident_mib'][0]:.0f} to {row['turns'][-1]['resident_mib'][-1]:.0f} MiB",
        ]
        for row in rows_of_all_machines("predicting")
    ]
    titles = ["", "two cores of", "pictures", "pictures/s", "of the model's own rate", "memory, first tenth to last"]
    return table(titles, cells) if cells else ""


if __name__ == "__main__":
    main()
