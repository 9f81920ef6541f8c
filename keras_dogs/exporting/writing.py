"""The process that writes an exported file, on the backend that can: `python -m keras_dogs.exporting.writing JOB`.

It also computes what the run's own classifier answers to the pictures of the check.
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import NotRequired
from typing import TypedDict

import numpy as np

from keras_dogs import backends
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.errors import in_words
from keras_dogs.errors import naming_flags
from keras_dogs.exporting import formats

REFERENCE, FACTS, ERROR = "reference.npz", "facts.json", "error.json"


class Job(TypedDict):
    """What the process is told.

    Attributes:
        model: str. The `.keras` file.
        format, quantize: str. See `exporting.config`.
        folder: str. Where the exported file goes.
        work: str. A folder for what is between the two processes.
        pictures: list of str. Files that the classifier is to answer.
        calibration: list of str. Training pictures, for `int8`.
        temperature: float.
    """

    model: str
    format: str
    folder: str
    work: str
    pictures: list[str]
    temperature: float
    quantize: NotRequired[str | None]
    calibration: NotRequired[list[str]]


class Facts(TypedDict):
    """What the process found, beside the answers."""

    class_names: list[str]
    canvas: dict
    family: str
    policy: str
    backend: str
    versions: dict[str, str]
    unreadable: list[str]
    notes: list[str]


@naming_flags()
def main() -> int:
    """Runs the job of a file; writes any error to another."""
    job: Job = json.loads(Path(sys.argv[1]).read_text("utf-8"))  # the parent's; names of files need not be UTF-8
    work = Path(job["work"])
    try:
        _write(job, work)
        return 0
    except UserError as error:
        problem, status = str(error), 2
    except OSError as error:
        problem, status = in_words(error), 1
    except MemoryError:
        problem, status = f"--format {job['format']}: there is not enough memory to write it", 1
    except Exception as error:  # of whatever a converter cannot do
        problem = f"--format {job['format']}: the export failed: {type(error).__name__}: {first_line(error)}"
        status = 1
    (work / ERROR).write_text(json.dumps({"error": problem, "status": status}), "utf-8")
    return status


def _write(job: Job, work: Path) -> None:
    backends.load()
    from keras_dogs.data.loaders.batches import predict_in_batches
    from keras_dogs.evaluation.inference import class_names_of
    from keras_dogs.exporting.answering import BATCH_SIZE
    from keras_dogs.models.builders import load_classifier
    from keras_dogs.models.plain import in_float32

    classifier = load_classifier(Path(job["model"]))
    policy = classifier.backbone.dtype_policy.name
    if not backends.is_exact(classifier):
        classifier = in_float32(classifier)
    names, canvas = class_names_of(classifier), classifier.canvas
    notes: tuple[str, ...] = ()
    is_library = formats.find(job["format"]).is_library
    if is_library:  # first: what a library cannot hold is known before any picture is answered
        from keras_dogs.exporting import writing_library

        notes = writing_library.write(job["format"], Path(job["model"]), names, canvas, Path(job["folder"]))
    read, canvases, unread = _open_all(job["pictures"], canvas)
    if not read:
        raise UserError("none of the pictures of the check can be read; give others by --pictures")
    logits, _ = predict_in_batches(classifier, canvases, min(BATCH_SIZE, len(canvases)))
    np.savez(work / REFERENCE, files=np.array(read), logits=logits)
    if is_library:
        writing_library.save_pixels(classifier, canvases, work / writing_library.PIXELS)
    facts = Facts(
        class_names=names,
        canvas=canvas,
        family=classifier.family,
        policy=policy,
        backend=backends.name(),
        versions=backends.versions(),
        unreadable=unread,
        notes=list(notes),
    )
    (work / FACTS).write_text(json.dumps(facts), "utf-8")
    if job["format"] in _WRITERS:
        _write_file(job, classifier, names, canvas, canvases, work)


def _write_file(job: Job, classifier, names: list[str], canvas: dict, canvases: np.ndarray, work: Path) -> None:
    """Writes the one file of a format that has one."""
    from keras_dogs.models.plain import plain_classifier

    plain = plain_classifier(classifier, job["temperature"])
    calibration = _open_all(job.get("calibration", []), canvas)[1]
    if job.get("quantize") == formats.INT8 and calibration is None:
        raise UserError("--quantize int8: none of the training pictures can be read; give others by --pictures")
    _WRITERS[job["format"]](plain, Path(job["folder"]), names, canvases, job.get("quantize"), calibration, work)


def _open_all(files: list[str], canvas: dict):
    """Returns the files that can be read, their canvases, and the names of the others."""
    from keras_dogs.exporting.answering import read_canvases

    batches = list(read_canvases(files, canvas))
    read = [file for batch, _, _ in batches for file in batch]
    canvases = [part for _, part, _ in batches if part is not None]
    return read, np.concatenate(canvases) if canvases else None, [file for *_, why in batches for file, _ in why]


def _program(plain, canvases):
    exports = backends.module_of("exports")
    return exports, exports.program_of(plain, np.repeat(canvases[:1], 2, axis=0))


def _write_onnx(plain, folder: Path, names, canvases, quantize, calibration, work: Path) -> None:
    exports, program = _program(plain, canvases)
    if not quantize:
        exports.write_onnx(program, folder / "model.onnx", names)
        return
    from keras_dogs.exporting import quantizing

    exports.write_onnx(program, work / "model.onnx", names)
    quantizing.quantize_onnx(work / "model.onnx", folder / "model.onnx", calibration)


def _write_torch(plain, folder: Path, names, canvases, quantize, calibration, work: Path) -> None:
    exports, program = _program(plain, canvases)
    exports.write_program(program, folder / "model.pt2", names)


def _write_openvino(plain, folder: Path, names, canvases, quantize, calibration, work: Path) -> None:
    import openvino

    exports, program = _program(plain, canvases)
    model = exports.openvino_of(program)
    if quantize == formats.INT8:
        from keras_dogs.exporting import quantizing

        model = quantizing.quantize_openvino(model, calibration)
    model.set_rt_info(json.dumps(names), "class_names")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=quantize == formats.FLOAT16)


def _write_saved_model(plain, folder: Path, names, canvases, quantize, calibration, work: Path) -> None:
    backends.module_of("exports").write_saved_model(plain, folder / "saved_model", names)


def _write_litert(plain, folder: Path, names, canvases, quantize, calibration, work: Path) -> None:
    exports = backends.module_of("exports")
    exports.write_saved_model(plain, work / "saved_model", names)
    if quantize == formats.INT8:
        content = exports.litert_of_int8(work / "saved_model", calibration)
    else:
        content = exports.litert_of(work / "saved_model", float16=quantize == formats.FLOAT16)
    (folder / "model.tflite").write_bytes(exports.with_class_names(content, names))


def _write_keras(plain, folder: Path, names, canvases, quantize, calibration, work: Path) -> None:
    from keras_dogs.models.plain import check_stock

    check_stock(plain)
    file = folder / "model.keras"
    plain.save(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("class_names.json", json.dumps(names))


_WRITERS = {
    "onnx": _write_onnx,
    "torch": _write_torch,
    "tf_saved_model": _write_saved_model,
    "litert": _write_litert,
    "openvino": _write_openvino,
    "keras": _write_keras,
}


if __name__ == "__main__":
    sys.exit(main())
