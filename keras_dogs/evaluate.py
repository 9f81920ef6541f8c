"""Score a trained classifier: `python -m keras_dogs.evaluate RUN --help`."""

import dataclasses
import json
import sys
from pathlib import Path

from keras_dogs import commands
from keras_dogs.evaluation.config import EvaluateConfig
from keras_dogs.runs.exports import is_exported


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("evaluate", EvaluateConfig, _evaluate)


def _evaluate(config: EvaluateConfig) -> None:
    exported = None
    if is_exported(Path(config.run)):
        from keras_dogs.exporting.exported import open_exported

        exported = open_exported(Path(config.run))
        where = exported.facts["format"]
    else:
        from keras_dogs import backends

        where = backends.load()
    from keras_dogs.evaluation.evaluating import evaluate_run

    scores = dataclasses.asdict(evaluate_run(config, exported))
    if config.json:
        print(json.dumps({"run": str(config.run), "split": config.split, "backend": where, **scores}))
        return
    for name, value in scores.items():
        plain = name.replace("_", " ").replace("top1", "top-1").replace("top5", "top-5")
        is_share = name.endswith(("accuracy", "error"))
        print(
            f"{plain:<28}"
            + (f"{value:.1%}" if is_share else f"{value:,}" if name == "num_pictures" else f"{value:.3f}")
        )
    if config.output:
        print(f"page: {config.output / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
