"""Write a trained classifier for another runtime: `python -m keras_dogs.export RUN --format onnx`."""

import sys

from keras_dogs import commands
from keras_dogs.exporting.config import ExportConfig
from keras_dogs.system import terminal


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("export", ExportConfig, _export)


def _export(config: ExportConfig) -> int:
    from keras_dogs.exporting.exporting import export_run
    from keras_dogs.exporting.verification import NothingWritten

    try:
        output, found = export_run(config)
    except NothingWritten as error:
        print(terminal.one_line(f"keras_dogs.export: error: {error}; nothing was written"), file=sys.stderr)
        return 1
    for line in _in_words(found):
        print(terminal.printable(line))
    print(terminal.printable(f"exported: {output}"))
    return 0


def _in_words(found: dict) -> list[str]:
    checked = found["verification"]
    off, largest = checked["largest_difference"], checked["largest_logit"]
    lines = [
        f"checked with {checked['num_pictures']:,} {checked['pictures']}",
        f"  same name          {checked['agreement']:.1%}",
        f"  largest difference {off:.2g} of logits up to {largest:.3g} ({off / max(largest, 1e-30):.1e})",
    ]
    if checked["top1_accuracy"] is not None:
        lines.append(f"  top-1 accuracy     {checked['top1_accuracy']:.1%} (run {checked['top1_accuracy_of_run']:.1%})")
    if found["quantization"] and checked["accuracy_loss_interval"]:
        low, high = (100 * bound for bound in checked["accuracy_loss_interval"])
        lines.append(f"  accuracy lost      {low:+.1f} to {high:+.1f} points (95 % interval)")
    return [
        *lines,
        f"  one picture        {checked['latency_p50_ms']:.1f} ms (p95 {checked['latency_p95_ms']:.1f} ms)",
        f"  batches of 32      {checked['images_per_second']:.0f} images/s",
        f"  size               {checked['size_bytes'] / 2**20:.1f} MiB",
    ]


if __name__ == "__main__":
    sys.exit(main())
