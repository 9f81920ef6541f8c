"""The flags of `export`, with their help; the field is the flag."""

import dataclasses
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from keras_dogs.errors import UserError
from keras_dogs.exporting import formats
from keras_dogs.exporting import pushing
from keras_dogs.runs import exports
from keras_dogs.system import ownership
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges
from keras_dogs.system.flags import refuse_idle


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write a trained classifier for another runtime or library, and check its answers against the run's."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a .keras file; with --push also a folder that was exported before."""
    format: str = "onnx"
    """For a file: onnx, torch (ExportedProgram), tf_saved_model, litert, openvino, keras (a plain Keras model). For a
    folder for a library: transformers, timm, keras_hub."""
    output: Path | None = None
    """The folder to write; default: exports/FORMAT[-QUANTIZE] in the run folder, or, of a .keras file,
    exports/NAME-FORMAT[-QUANTIZE] here."""
    quantize: Literal["int8", "float16"] | None = None
    """int8: 8-bit weights and integer arithmetic (onnx, litert, openvino); float16: 16-bit weights (litert,
    openvino)."""
    pictures: Path | None = None
    """A folder of pictures to check it with; default: the run's own test pictures, or random ones for a .keras file."""
    verify_pictures: int = 200
    """Maximum number of pictures to check it with; at most 32 if they are random."""
    max_accuracy_loss: float = 1.0
    """Percentage points of top-1 accuracy that a quantised model may lose."""
    data_dir: Path | None = None
    """Where stanford_dogs is kept; default: as in training."""
    push: str | None = None
    """Send a folder for a library to hf://USER/NAME or kaggle://USER/MODEL/FRAMEWORK/VARIATION, as a private model."""
    public: bool = False
    """Let anybody see what --push sends to Hugging Face."""
    dry_run: bool = False
    """Write the folder, say what --push would send, and send nothing."""

    def __post_init__(self):
        self._check_push()
        if self.push and exports.is_exported(self.run):
            idle = ("format", "output", "quantize", "pictures", "verify_pictures", "max_accuracy_loss", "data_dir")
            refuse_idle(self, idle, "on a folder that was exported before, which --push only sends")
            return
        check_ranges(self, {"verify_pictures": Range(1, 10**6), "max_accuracy_loss": Range(0, 100)})
        row = formats.find(self.format)
        if self.push and not row.is_library:
            those = ", ".join(formats.LIBRARIES)
            raise UserError(f"--push {self.push}: needs a folder for a library, --format {those}; not {row.name}")
        formats.check_quantization(row, self.quantize)
        if not self.quantize:
            refuse_idle(self, ("max_accuracy_loss",), "without --quantize, as float32 has to answer the same")
        if self.pictures:
            refuse_idle(self, ("data_dir",), "with --pictures")
        formats.check_installed(row, self.quantize)
        if self.output:
            ownership.check_new(self.output, ownership.EXPORT)

    def _check_push(self):
        if not self.push:
            refuse_idle(self, ("public", "dry_run"), "without --push")
            return
        target = pushing.parse(self.push)
        if target.hub == "kaggle":
            refuse_idle(self, ("public",), "on Kaggle, whose page makes a model public")
        if not self.dry_run:
            pushing.check(target)
