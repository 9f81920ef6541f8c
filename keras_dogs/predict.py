"""Name the breeds in pictures: `python -m keras_dogs.predict RUN PICTURE...`."""

import contextlib
import json
import sys
import time

from keras_dogs import commands
from keras_dogs.data.datasets import display_name
from keras_dogs.errors import write_error
from keras_dogs.evaluation.config import PredictConfig
from keras_dogs.runs.exports import is_exported
from keras_dogs.system import progress
from keras_dogs.system import terminal
from keras_dogs.system.files import written_whole


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("predict", PredictConfig, _predict)


def _predict(config: PredictConfig) -> int:
    from keras_dogs.evaluation.inference import find_pictures

    pictures = find_pictures(config.pictures)
    with contextlib.ExitStack() as stack:
        if config.csv:
            put, keep, pictures = _into_table(config, pictures, stack)
        else:
            put, keep = _into_text(config, stack), lambda: None
        if not pictures:
            return 0
        name = (_by_export if is_exported(config.run) else _by_run)(config)
        return _answer(config, name, pictures, put, keep)


def _into_table(config: PredictConfig, pictures: list, stack: contextlib.ExitStack):
    """Opens the table; returns a function that adds a row, one that flushes rows, and the pictures without a row."""
    from keras_dogs.evaluation.answer_table import AnswerTable
    from keras_dogs.evaluation.answer_table import name_of

    table = stack.enter_context(AnswerTable(config.csv, config.run, config.top_k, config.coverage, config.resume))
    left = [file for file in pictures if name_of(file) not in table.done]
    if len(left) < len(pictures):
        progress.open_console().print(f"{config.csv}: {len(pictures) - len(left):,} pictures have a row already")
    return table.add, table.flush, left


def _into_text(config: PredictConfig, stack: contextlib.ExitStack):
    """Returns the function that writes an answer to the output, or to a file that is put in place when it is whole."""
    stream = None
    if config.output:
        try:
            stream = stack.enter_context(stack.enter_context(written_whole(config.output)).open("w", encoding="utf-8"))
        except OSError as error:
            raise write_error(config.output, error) from error

    def put(prediction):
        if not prediction.error:
            print(_as_json(prediction) if config.json else _in_words(prediction, config), file=stream, flush=True)

    return put


def _answer(config: PredictConfig, name, pictures: list, put, keep) -> int:
    """Names all pictures, reports those that are unreadable, and prints a summary; returns the exit status."""
    counted = dict.fromkeys(("named", "unfamiliar", "unreadable"), 0)
    to_file, several = config.csv or config.output, len(pictures) > 1
    began = time.perf_counter()
    with progress.counting("Naming (pictures)", len(pictures)) if to_file else contextlib.nullcontext() as on_picture:
        for number, prediction in enumerate(name(pictures), 1):
            if prediction.error:
                line = f"keras_dogs.predict: error: {prediction.file}: {prediction.error}"
                print(terminal.one_line(line), file=sys.stderr)
            put(prediction)
            counted["unreadable" if prediction.error else "named"] += 1
            counted["unfamiliar"] += bool(prediction.answer and prediction.answer.is_unfamiliar)
            if on_picture:
                on_picture()
            if number % config.batch_size == 0 or number == len(pictures):
                keep()
    if several:
        seconds = time.perf_counter() - began
        rest = "".join(f", {counted[kind]:,} {kind}" for kind in ("unfamiliar", "unreadable") if counted[kind])
        progress.open_console().print(
            f"{counted['named']:,} of {len(pictures):,} pictures named in {seconds:.1f} s "
            f"({len(pictures) / seconds:,.1f} a second){rest}"
        )
    return 1 if counted["unreadable"] else 0


def _by_run(config: PredictConfig):
    """Returns the function of picture files to predictions by a run's classifier."""
    from keras_dogs import backends
    from keras_dogs.evaluation.calibration import calibration_of
    from keras_dogs.evaluation.calibration import check_coverage
    from keras_dogs.runs import artifacts
    from keras_dogs.system import caches

    model_file, calibration = artifacts.find_model(config.run), calibration_of(config.run)
    if config.coverage:
        check_coverage(config.coverage, calibration)  # before a model is loaded in vain
    backends.load()
    from keras_dogs.evaluation.inference import predict_pictures
    from keras_dogs.models.builders import load_classifier

    backends.keep_compiled(caches.folder("compiled"))
    how = config.top_k, config.batch_size, calibration, config.coverage
    classifier = load_classifier(model_file)
    return lambda pictures: predict_pictures(classifier, pictures, *how)


def _by_export(config: PredictConfig):
    """Returns the function of picture files to predictions by an exported model, without Keras where it needs none."""
    from keras_dogs.evaluation.inference import AnswerSettings
    from keras_dogs.evaluation.inference import name_pictures
    from keras_dogs.exporting.exported import open_exported

    exported = open_exported(config.run)
    answering = AnswerSettings(exported.class_names, exported.calibration, config.top_k, config.coverage)
    answering.check()
    return lambda pictures: name_pictures(exported.ask, exported.canvas, answering, pictures, config.batch_size)


def _as_json(prediction) -> str:
    return json.dumps({"file": str(prediction.file), **prediction.answer.to_plain()})


def _in_words(prediction, config: PredictConfig) -> str:
    answer, rows = prediction.answer, [str(prediction.file)]
    if answer.is_unfamiliar:
        share = f"{100 * answer.unfamiliarity:.0f} %"
        rows.append(f"  unfamiliar: stranger than {share} of the validation pictures; the nearest breeds:")
    rows += [f"  {probability:6.1%}  {display_name(name)}" for name, probability in prediction.breeds]
    if answer.breed_set is not None:
        rows.append(f"  {100 * config.coverage:g} % set: {', '.join(map(display_name, answer.breed_set))}")
    return "\n".join(map(terminal.printable, rows))


if __name__ == "__main__":
    sys.exit(main())
