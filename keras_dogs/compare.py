"""Compare models and backends: `python -m keras_dogs.compare --pair embedded --help`."""

import sys

from keras_dogs import commands
from keras_dogs.comparison.config import CompareConfig


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("compare", CompareConfig, _compare)


def _compare(config: CompareConfig) -> int:
    from keras_dogs.comparison.running import compare_runs

    results = compare_runs(config)
    for sentence in results["verdicts"]:
        print(sentence)
    print(f"report: {config.output / 'report.html'}")
    failed = [run for run in results["runs"] if "error" in run]
    for run in failed:
        print(f"failed: {run['name']}: {run['error']}", file=sys.stderr)
    return 1 if len(failed) == len(results["runs"]) else 0


if __name__ == "__main__":
    sys.exit(main())
