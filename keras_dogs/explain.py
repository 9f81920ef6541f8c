"""See where a classifier looked: `python -m keras_dogs.explain RUN PICTURE... --output DIR`."""

import sys

from keras_dogs import commands
from keras_dogs.data.datasets import display_name
from keras_dogs.evaluation.config import ExplainConfig


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("explain", ExplainConfig, _explain)


def _explain(config: ExplainConfig) -> None:
    from keras_dogs import backends
    from keras_dogs.errors import write_error
    from keras_dogs.runs import artifacts

    backends.select()
    model_file = artifacts.find_model(config.run)
    from keras_dogs.evaluation.explanation import explain_files
    from keras_dogs.evaluation.inference import find_pictures
    from keras_dogs.models.builders import load_classifier

    pictures = find_pictures(config.pictures)
    try:
        for file, found, drawn in explain_files(load_classifier(model_file), pictures, config.output):
            name = display_name(found.class_name)
            print(f"{file}: {name} {found.probability:.1%}, {found.method}: {drawn}", flush=True)
    except OSError as error:
        raise write_error(config.output, error) from error


if __name__ == "__main__":
    sys.exit(main())
