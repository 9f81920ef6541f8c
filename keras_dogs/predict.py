"""Name the breeds in pictures: `python -m keras_dogs.predict RUN PICTURE...`."""

import json
import sys

from keras_dogs import commands
from keras_dogs.data.datasets import display_name
from keras_dogs.evaluation.config import PredictConfig
from keras_dogs.runs.exports import is_exported
from keras_dogs.system import terminal


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("predict", PredictConfig, _predict)


def _predict(config: PredictConfig) -> int:
    from keras_dogs.evaluation.inference import find_pictures

    status, answers = 0, _exported if is_exported(config.run) else _of_run
    predictions = answers(config, find_pictures(config.pictures))
    for prediction in predictions:
        if prediction.error:
            line = f"keras_dogs.predict: error: {prediction.file}: {prediction.error}"
            print(terminal.one_line(line), file=sys.stderr)
            status = 1
        elif config.json:
            print(json.dumps({"file": str(prediction.file), "breeds": dict(prediction.breeds)}), flush=True)
        else:
            print(_in_words(prediction), flush=True)
    return status


def _of_run(config: PredictConfig, pictures):
    from keras_dogs import backends
    from keras_dogs.runs import artifacts
    from keras_dogs.system import caches

    backends.select()
    model_file = artifacts.find_model(config.run)
    from keras_dogs.evaluation.inference import predict_pictures
    from keras_dogs.models.builders import load_classifier

    backends.keep_compiled(caches.folder("compiled"))
    return predict_pictures(load_classifier(model_file), pictures, config.top_k, config.batch_size)


def _exported(config: PredictConfig, pictures):
    from keras_dogs.evaluation.inference import name_pictures
    from keras_dogs.exporting.exported import open_exported

    exported = open_exported(config.run)
    how = exported.canvas, exported.class_names
    return name_pictures(exported.probabilities, *how, pictures, config.top_k, config.batch_size)


def _in_words(prediction) -> str:
    rows = [f"  {probability:6.1%}  {display_name(name)}" for name, probability in prediction.breeds]
    return "\n".join(map(terminal.printable, [str(prediction.file), *rows]))


if __name__ == "__main__":
    sys.exit(main())
