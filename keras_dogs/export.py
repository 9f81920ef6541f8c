"""Writes a trained classifier for another runtime or library: `python -m keras_dogs.export RUN --format onnx`."""

import shlex
import sys
from pathlib import Path

from keras_dogs import commands
from keras_dogs.errors import UserError
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.system import terminal


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("export", ExportConfig, _export)


def _export(config: ExportConfig) -> int:
    from keras_dogs.exporting.exporting import export_run
    from keras_dogs.exporting.verification import NothingWritten

    if config.push and not config.output and (earlier := _exported_before(config)):
        print(terminal.printable(f"exported before: {earlier}"))
        return _push(config, earlier)
    try:
        output, found = export_run(config)
    except NothingWritten as error:
        print(terminal.one_line(f"keras_dogs.export: error: {error}; nothing was written"), file=sys.stderr)
        return 1
    for line in _summary(found):
        print(terminal.printable(line))
    print(terminal.printable(f"exported: {output}"))
    return _push(config, output) if config.push else 0


def _exported_before(config: ExportConfig) -> Path | None:
    """Returns the folder that an earlier export of the same model left, so that a push needs no second one.

    Raises:
        UserError: what lies there was exported from another model.
    """
    from keras_dogs.exporting.exporting import default_output
    from keras_dogs.runs import artifacts
    from keras_dogs.runs import exports

    if exports.is_exported(config.run):
        return config.run
    folder = default_output(config)
    if not exports.is_exported(folder):
        return None
    model = artifacts.find_model(config.run)
    if exports.read(folder / exports.FILE).get("model_digest") != artifacts.digest_of(model):
        raise UserError(
            f"{folder}: not known to be an export of {model} as it is now; to push it anyway, give {folder} as the "
            f"run; to export {model}, give --output FOLDER"
        )
    return folder


def _push(config: ExportConfig, folder: Path) -> int:
    """Pushes an exported folder, or prints what would be pushed."""
    from keras_dogs.exporting import exported
    from keras_dogs.exporting import pushing

    facts = exported.read_library_folder(folder)
    target = pushing.parse(config.push)
    if config.dry_run:
        for line in pushing.plan(folder, target, config.public):
            print(terminal.printable(line))
        return 0
    message = f"{facts['family']} of {len(facts['class_names'])} classes, written by keras_dogs"
    print(terminal.printable(f"pushing to {target} ..."), flush=True)
    words = ["python", "-m", "keras_dogs.export", str(folder), "--push", str(target), *["--public"] * config.public]
    again = f"the folder is kept; to go on: {shlex.join(words)}"
    try:
        page = pushing.push(folder, target, config.public, message)
    except (UserError, pushing.NotPushed) as error:
        print(terminal.one_line(f"keras_dogs.export: error: {error}; {again}"), file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(terminal.printable(f"pushed: {page}"))
    return 0


def _summary(found: dict) -> list[str]:
    """Returns the lines that are printed of an export's verification."""
    checked = found["verification"]
    off, largest = checked["largest_difference"], checked["largest_logit"]
    apart = f"{off:.2g} on logits up to {largest:.3g} ({off / max(largest, 1e-30):.1e})"
    lines = [f"checked with {checked['num_pictures']:,} {checked['pictures']}"]
    is_library = "notes" in found  # exports for a runtime have none
    if is_library:
        lines += [
            f"  same pixels        largest difference {apart}, {checked['num_pixels']} pictures",
            f"  from the files     {checked['agreement']:.1%} same name, by the preprocessing of {found['format']}",
        ]
    else:
        lines += [f"  same name          {checked['agreement']:.1%}", f"  largest difference {apart}"]
    if checked["top1_accuracy"] is not None:
        lines.append(f"  top-1 accuracy     {checked['top1_accuracy']:.1%} (run {checked['top1_accuracy_of_run']:.1%})")
    if (found["quantization"] or is_library) and checked["accuracy_loss_interval"]:
        low, high = (100 * bound for bound in checked["accuracy_loss_interval"])
        lines.append(f"  accuracy lost      {low:+.1f} to {high:+.1f} points (95 % interval)")
    lines += [f"  note               {note}" for note in found.get("notes", ())]
    return [
        *lines,
        f"  one picture        {checked['latency_p50_ms']:.1f} ms (p95 {checked['latency_p95_ms']:.1f} ms)",
        f"  batches of 32      {checked['images_per_second']:.0f} images/s",
        f"  size               {checked['size_bytes'] / 2**20:.1f} MiB",
    ]


if __name__ == "__main__":
    sys.exit(main())
