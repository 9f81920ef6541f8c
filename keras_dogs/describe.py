"""List the presets, or describe one: `python -m keras_dogs.describe [PRESET]`."""

import dataclasses
import json
import shutil
import sys
from typing import Annotated

import tyro

from keras_dogs import commands
from keras_dogs.models.costs import count_gflops
from keras_dogs.models.costs import count_parameters
from keras_dogs.models.presets import PRESETS
from keras_dogs.models.presets import PUBLISHED
from keras_dogs.system import terminal


@dataclasses.dataclass(frozen=True)
class DescribeConfig:
    """List the built-in presets, or describe one preset."""

    preset: Annotated[str | None, tyro.conf.Positional] = None
    """A preset of the list, or anything else that --preset accepts, which is loaded first."""
    json: bool = False
    """Print JSON Lines: one object per preset, each on its own line."""


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("describe", DescribeConfig, _describe)


def _describe(config: DescribeConfig) -> None:
    if config.preset is None:
        rows = [describe_preset(name) for name in PRESETS]
    elif config.preset in PRESETS:
        rows = [describe_preset(config.preset)]
    else:
        rows = [_describe_loaded(config.preset)]
    if config.json:
        print("\n".join(json.dumps(row) for row in rows))
    elif config.preset is None:
        for line in [_HEADER, *map(_in_a_line, rows)]:
            print(_as_wide_as_the_terminal(line))
    else:
        for name, value in rows[0].items():
            print(terminal.printable(f"{name.replace('_', ' '):<24}{_in_words(value)}"))


def describe_preset(name: str) -> dict:
    """Describes a built-in preset from its row of the table, without loading it."""
    row, published = PRESETS[name], PUBLISHED.get(name)
    return {
        "preset": name,
        "family": row.family,
        "source": row.source or "an architecture without published weights",
        "image_size": row.image_size,
        "parameters": count_parameters(row),
        "gflops": round(count_gflops(row), 2),
        "pretraining": published.pretraining if published else None,
        "licence": published.licence if published else None,
        "imagenet_top1_accuracy": published.top1_accuracy if published else None,
        "imagenet_source": published.source or None if published else None,
        **row.architecture,
    }


def _describe_loaded(preset: str) -> dict:
    """Loads a preset that is not in the table, and describes it."""
    from keras_dogs import backends

    backends.load()  # before Keras is imported
    from keras_dogs.models.weights import load_backbone

    loaded = load_backbone(preset)
    return {
        "preset": preset,
        "family": loaded.family,
        "image_size": list(loaded.image_size),
        "parameters": loaded.backbone.count_params(),
        "scale": list(loaded.scale),
        "offset": list(loaded.offset),
        "pooling": loaded.pooling,
        "interpolation": loaded.interpolation,
        "tensors_without_use": list(loaded.ignored),
        "notes": list(loaded.notes),
    }


_HEADER = f"{'preset':<46}{'parameters':>12} {'operations':>13}  {'input':>6}  {'top-1':>7}  what the weights have seen"


def _as_wide_as_the_terminal(line: str) -> str:
    """Cuts a line at the edge of a terminal; a file or a pipe gets all of it."""
    columns = shutil.get_terminal_size().columns
    return line if len(line) <= columns or not sys.stdout.isatty() else line[: columns - 1] + "…"


def _in_a_line(row: dict) -> str:
    accuracy = f"{row['imagenet_top1_accuracy']:.1f} %" if row["imagenet_top1_accuracy"] else ""
    return (
        f"{row['preset']:<46}{row['parameters'] / 1e6:10.1f} M {row['gflops']:6.1f} GFLOPs  {row['image_size']:>3} px  "
        f"{accuracy:>7}  {row['pretraining'] or row['source']}"
    )


def _in_words(value) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str("unknown" if value is None else value)


if __name__ == "__main__":
    sys.exit(main())
