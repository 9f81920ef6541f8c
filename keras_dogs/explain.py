"""See where a classifier looked: `python -m keras_dogs.explain RUN PICTURE... --output DIR`."""

import sys

from keras_dogs import commands
from keras_dogs.data.datasets import display_name
from keras_dogs.evaluation.config import ExplainConfig
from keras_dogs.system import terminal


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("explain", ExplainConfig, _explain)


def _explain(config: ExplainConfig) -> int:
    from keras_dogs import backends
    from keras_dogs.evaluation.calibration import calibration_of
    from keras_dogs.runs import artifacts

    backends.load()
    model_file, temperature = artifacts.find_model(config.run), calibration_of(config.run).temperature
    from keras_dogs.evaluation.explanation import explain_files
    from keras_dogs.evaluation.inference import find_pictures
    from keras_dogs.models.builders import load_classifier

    pictures, status = find_pictures(config.pictures), 0
    explained = explain_files(load_classifier(model_file), pictures, config.output, temperature)
    for file, found, outcome in explained:
        if found is None:
            print(terminal.one_line(f"keras_dogs.explain: error: {file}: {outcome}"), file=sys.stderr)
            status = 1
            continue
        name = display_name(found.class_name)
        line = f"{file}: {name} {found.probability:.1%}, {found.method}: {outcome}"
        print(terminal.one_line(line), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
