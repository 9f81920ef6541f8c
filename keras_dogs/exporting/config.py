"""The flags of `export`, with their help; the field is the flag."""

import dataclasses
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from keras_dogs.exporting import formats
from keras_dogs.system import ownership
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges
from keras_dogs.system.flags import refuse_idle


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write a trained classifier for another runtime, and check its answers against the run's."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a .keras file."""
    format: str = "onnx"
    """onnx, torch (ExportedProgram), tf_saved_model, litert, openvino, or keras (a model of plain Keras)."""
    output: Path | None = None
    """The folder to write; default: exports/FORMAT[-QUANTIZE] in the run folder, or, of a .keras file,
    exports/NAME-FORMAT[-QUANTIZE] here."""
    quantize: Literal["int8", "float16"] | None = None
    """Weights of 8 bits, and computation in integers (onnx, litert, openvino), or weights of 16 bits (litert,
    openvino)."""
    pictures: Path | None = None
    """A folder of pictures to check it with; default: the run's own test pictures, or random ones, of a .keras file."""
    verify_pictures: int = 200
    """At most how many pictures to check it with; of random ones 32."""
    max_accuracy_loss: float = 1.0
    """Of a quantised model: percentage points of top-1 accuracy that it may lose."""
    data_dir: Path | None = None
    """Where stanford_dogs is kept; default: as in training."""

    def __post_init__(self):
        check_ranges(self, {"verify_pictures": Range(1, 10**6), "max_accuracy_loss": Range(0, 100)})
        row = formats.find(self.format)
        formats.check_quantization(row, self.quantize)
        if not self.quantize:
            refuse_idle(self, ("max_accuracy_loss",), "without --quantize, as float32 has to answer the same")
        if self.pictures:
            refuse_idle(self, ("data_dir",), "with --pictures")
        formats.check_installed(row, self.quantize)
        if self.output:
            ownership.check_new(self.output, ownership.EXPORT)
