"""The flags of `export`, with their help; the field is the flag."""

import dataclasses
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from keras_dogs.errors import UserError
from keras_dogs.exporting import formats
from keras_dogs.system import ownership
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write a trained classifier for another runtime, and prove that it answers the same."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a .keras file."""
    format: str = "onnx"
    """onnx, torch (ExportedProgram), tf_saved_model, litert, openvino, or keras (a model of plain Keras)."""
    output: Path | None = None
    """The folder to write; default: exports/FORMAT in the run folder."""
    quantize: Literal["int8", "float16"] | None = None
    """Weights of 8 bits, and computation in integers (onnx, litert, openvino), or weights of 16 bits (litert,
    openvino)."""
    pictures: Path | None = None
    """A folder of pictures to check it with; default: the run's own test pictures."""
    verify_pictures: int = 200
    """How many pictures to check it with."""
    max_accuracy_loss: float = 1.0
    """Of a quantised model: percentage points of top-1 accuracy that it may lose."""
    data_dir: Path | None = None
    """Where stanford_dogs is kept; default: as in training."""

    def __post_init__(self):
        check_ranges(self, {"verify_pictures": Range(1, 10**6), "max_accuracy_loss": Range(0, 100)})
        row = formats.find(self.format)
        formats.check_quantization(row, self.quantize)
        if self.max_accuracy_loss != 1.0 and not self.quantize:
            raise UserError(
                f"--max-accuracy-loss {self.max_accuracy_loss:g}: has no effect without --quantize, as float32 has to "
                "answer the same"
            )
        formats.check_installed(row, self.quantize)
        if self.output:
            ownership.check_new(self.output, ownership.EXPORT)
