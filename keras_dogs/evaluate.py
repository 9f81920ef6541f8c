"""Score a trained classifier: `python -m keras_dogs.evaluate RUN --help`."""

import dataclasses
import json
import sys

from keras_dogs import commands
from keras_dogs.evaluation.config import EvaluateConfig


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("evaluate", EvaluateConfig, _evaluate)


def _evaluate(config: EvaluateConfig) -> None:
    from keras_dogs import backends

    backends.select()
    from keras_dogs.evaluation.evaluating import evaluate_run

    scores = dataclasses.asdict(evaluate_run(config))
    if config.json:
        print(json.dumps({"run": str(config.run), "split": config.split, "backend": backends.name(), **scores}))
        return
    for name, value in scores.items():
        plain = name.replace("_", " ").replace("top1", "top-1").replace("top5", "top-5")
        print(f"{plain:<28}" + (f"{value:.1%}" if name.endswith("accuracy") else f"{value:.4g}"))
    if config.output:
        print(f"page: {config.output / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
