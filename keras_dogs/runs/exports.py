"""The schema of `export.json`: what an exported folder holds, and what the check of it found."""

import contextlib
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from typing import NotRequired
from typing import TypedDict

from msgspec import Meta

from keras_dogs.errors import UserError
from keras_dogs.runs.records import Calibration
from keras_dogs.runs.records import Count
from keras_dogs.runs.records import DataInRecord
from keras_dogs.runs.records import NotNegative
from keras_dogs.runs.records import Positive
from keras_dogs.runs.records import Share
from keras_dogs.system import reading

FILE = "export.json"
NOT_READ_BACK = "keras_dogs cannot read this folder as a preset"  # what a note of such a folder begins with
SCHEMA_VERSION = 1
Side = Annotated[int, Meta(ge=1, le=2**15)]


class Canvas(TypedDict):
    """How a picture file becomes the input: the arguments of `to_canvas`."""

    size: Side | Annotated[list[Side], Meta(min_length=2, max_length=2)]
    fit: Literal["squash", "crop", "pad"]
    interpolation: Literal["bilinear", "bicubic"]


class Verification(TypedDict):
    """What the check of an export against its run found. Speeds were measured on the CPU of `machine`.

    Attributes:
        pictures: str. Where the pictures come from.
        num_pictures: int. How many pictures both the run and the export answered.
        agreement: float. The share of pictures that both give the same name. Another library names the picture files,
            preprocessed in its own way, while its logits are compared on pixels from the run's own preprocessing.
        largest_logit, largest_difference: float. The run's largest absolute logit, and the largest absolute difference
            between a logit of the run and that of the export.
        top1_accuracy, top1_accuracy_of_run: float or `None` where no labels are known.
        accuracy_loss_interval: pair of floats. Paired 95 % interval of the run's accuracy minus the export's, shares.
        size_bytes: int. Of all files that the runtime reads.
        imported: list of str. Which modules of Keras and of keras_dogs the runtime imported.
        num_pixels: int. For another library: the number of pictures whose logits were compared.
        unread: list of str. Files that the run can read and the library cannot.
    """

    pictures: str
    num_pictures: Count
    agreement: Share
    largest_logit: NotNegative
    largest_difference: NotNegative
    top1_accuracy: Share | None
    top1_accuracy_of_run: Share | None
    accuracy_loss_interval: tuple[float, float] | None
    open_s: NotNegative
    latency_p50_ms: NotNegative
    latency_p95_ms: NotNegative
    images_per_second: NotNegative
    size_bytes: Positive
    imported: NotRequired[list[str]]
    num_pixels: NotRequired[Count]
    unread: NotRequired[list[str]]
    machine: str


class Export(TypedDict):
    """What an exported folder holds.

    Attributes:
        run: str. The run folder or model that it was written from.
        model_digest: str. `runs.artifacts.digest_of` that model; not in files of earlier versions.
        data: dict. The dataset of the run, as its record has it; empty where it is not known.
        input, outputs: dict. Names, types and shapes, for those who open the file themselves.
        temperature: float or `None`. What logits are divided by before the softmax; `why_no_temperature` if not.
        calibration: `Calibration` of the run; not in files of earlier versions.
        digests: dict of str to str. SHA-256 of each file that the runtime reads.
        notes: list of str. Of a folder for another library: what it does otherwise.
    """

    schema_version: Positive
    format: str
    file: str
    quantization: Literal["int8", "float16"] | None
    run: str
    model_digest: NotRequired[str]
    preset: str
    pretraining: str
    family: str
    class_names: Annotated[list[str], Meta(min_length=1)]
    canvas: Canvas
    input: dict[str, Any]
    outputs: dict[str, Any]
    temperature: NotNegative | None
    why_no_temperature: NotRequired[str]
    calibration: NotRequired[Calibration]
    written_by: str
    versions: dict[str, str]
    data: dict[str, Any]
    seed: Count
    digests: NotRequired[dict[str, str]]
    notes: NotRequired[list[str]]
    verification: NotRequired[Verification]


def read(file: Path) -> Export:
    """Reads an `export.json`.

    Raises:
        UserError: it is missing, damaged or of a later version; the text names file and key.
    """
    found = reading.read_versioned(file, Export, SCHEMA_VERSION)
    if found["data"]:
        reading.check(found["data"], DataInRecord, f"{file}: data")
    reading.check(found["input"].get("shape", []), list[str | int], f"{file}: input.shape")
    return found


def exports_of(run: Path) -> list[Export]:
    """Reads what was exported into a run folder, `exports/*/export.json`; those that are damaged are left out."""
    found = []
    for file in sorted(run.glob(f"exports/*/{FILE}")):
        with contextlib.suppress(UserError):
            found.append(read(file))
    return [each for each in found if "verification" in each]


def is_exported(folder: Path) -> bool:
    """Returns whether `export` has written a folder."""
    return (folder / FILE).is_file()
