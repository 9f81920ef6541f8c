"""Writes the tables of `docs/checking.md` from the results: `python benchmarks/checking_docs.py`."""

import json
from pathlib import Path

import runs

from keras_dogs.system.pages import table

PAGE = Path(__file__).parents[1] / "docs" / "checking.md"


def main():
    """Writes the page."""
    PAGE.write_text(insert(PAGE.read_text()))


def insert(page: str) -> str:
    """Returns the page with the tables of the newest results."""
    (file,) = runs.RESULTS.glob("checking-*.json")
    rows = json.loads(file.read_text())["rows"]
    for mark, make in (("planted", of_planted), ("labels", of_labels), ("time", of_time), ("scale", of_scale)):
        page = runs.put_between(page, mark, make([row for row in rows if "error" not in row]))
    return page


def of_planted(rows: list[dict]) -> str:
    """Returns the recall of each change, and the precision, by who looked."""
    rows = [row for row in rows if row["what"] == "duplicates" and row["backend"] in ("", "torch")]
    tools = list(dict.fromkeys(row["by"] for row in rows))
    found = {(row["kind"], row["by"]): row for row in rows}
    cells = [
        [kind, *(f"{100 * found[kind, tool]['recall']:.0f} %" for tool in tools)]
        for kind in dict.fromkeys(row["kind"] for row in rows)
    ]
    cells.append(["precision", *(f"{100 * found['all', tool]['precision']:.1f} %" for tool in tools)])
    return table(["change", *tools], cells)


def of_labels(rows: list[dict]) -> str:
    """Returns how many of the planted labels are among the first suspects, by who looked."""
    cells = [
        [
            ", ".join(filter(None, (row["by"], runs.PROSE.get(row.get("backend"))))),
            row["first_100"],
            f"{row['found']} of 100",
            f"{row['num_suspects']:,}",
            f"{100 * row['accuracy']:.1f} %",
        ]
        for row in rows
        if row["what"] == "labels"
    ]
    return table(["by", "wrong among the first 100", "wrong labels found", "suspects", "the probe's accuracy"], cells)


def of_time(rows: list[dict]) -> str:
    """Returns the seconds of the whole command, by backend."""
    cells = [
        [runs.PROSE[row["backend"]], f"{row['first']:.0f} s", f"{row['again']:.0f} s"]
        for row in rows
        if row["what"] == "time"
    ]
    return table(["backend", "features computed", "features in the cache"], cells)


def of_scale(rows: list[dict]) -> str:
    """Returns time and memory against the number of pictures."""
    cells = [
        [
            f"{row['num_pictures']:,}",
            f"{row['duplicates_s']:.1f} s",
            f"{row['labels_s']:.1f} s",
            f"{row['gib_before'] + row['gib_more']:.1f} GiB",
        ]
        for row in sorted(rows, key=lambda row: row.get("num_pictures", 0))
        if row["what"] == "scale"
    ]
    return table(["pictures", "duplicates", "labels", "memory in all"], cells)


if __name__ == "__main__":
    main()
