"""Compare models and backends: `python -m keras_dogs.compare --pair embedded --help`."""

import sys

from keras_dogs import commands
from keras_dogs.comparison.config import CompareConfig
from keras_dogs.system import terminal


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("compare", CompareConfig, _compare)


def _compare(config: CompareConfig) -> int:
    from keras_dogs.comparison.running import compare_runs

    results = compare_runs(config)
    for sentence in results["verdicts"]:
        print(terminal.one_line(sentence))
    for note in results["notes"]:
        print(terminal.one_line(f"note: {note}"))
    print(f"report: {config.output / 'report.html'}")
    failed = [run for run in results["runs"] if "error" in run]
    for run in failed:
        print(terminal.one_line(f"keras_dogs.compare: error: {run['name']}: {run['error']}"), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
