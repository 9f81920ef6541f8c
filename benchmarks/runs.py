"""What the benchmarks share: start a run in a child process, read its record, write the result file."""

import contextlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_dogs.runs.records import PROSE  # noqa: F401 (the scripts beside this one take it from here)
from keras_dogs.runs.records import RunRecord

_ANSWER = "answer: "  # what a line begins with that is for the parent, among all that libraries print
RESULTS = Path(__file__).parent / "results"
# Processors of one brand differ by these, and with them every ratio; the widest first.
_VECTORS = {"avx512f": "avx512", "avx2": "avx2"}


def train(backend: str, output: Path, *flags) -> dict:
    """Runs `keras_dogs.train` on `backend` and gives a row: its figures, or the error."""
    row = {"backend": backend, "flags": [str(flag) for flag in flags]}
    command = [sys.executable, "-m", "keras_dogs.train", "--output", str(output), "--overwrite", *row["flags"]]
    print(f"\n{backend}: {' '.join(row['flags'])}", flush=True)
    finished = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend})
    if finished.returncode:
        return {**row, "error": f"exit status {finished.returncode}"}
    record = RunRecord.load(output / "record.json")
    timings = record.timings
    return {
        **row,
        "preset": Path(record.preset).name,
        "dataset": record.dataset.name,
        "num_train": record.dataset.num_train,
        "num_test": record.dataset.num_test,
        "device": record.device,
        "execution": record.execution,
        "test_top1_accuracy": record.test.top1_accuracy,
        "test_top5_accuracy": record.test.top5_accuracy,
        "test_loss": record.test.loss,
        "validation_top1_accuracy": record.validation.top1_accuracy if record.validation else None,
        "best_epoch": record.best_epoch,
        "train_images_per_second": record.throughput.train_images_per_second,
        "predict_images_per_second": record.throughput.predict_images_per_second,
        "first_step_s": timings.first_step_s,
        "train_s": timings.train_s,
        "total_s": timings.total_s,
        "peak_memory_gib": record.peak_memory_gib,
        "versions": record.versions,
    }


def measure(backend: str, *arguments):
    """Runs Python with `arguments` on `backend`, in a process of its own, and gives the JSON that it printed last.

    Returns:
        What it printed, or `{"error": str}`, the line that names the error, where it failed.
    """
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        return {"error": _error(done.stderr, done.returncode)}
    return json.loads(done.stdout.splitlines()[-1])


class Child:
    """Python with `arguments` on `backend` in a process that lives on, and does a turn of its work when it is asked."""

    def __init__(self, backend: str, *arguments):
        self._errors, self._failed = tempfile.TemporaryFile("w+"), None
        self._process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self) -> dict:
        """Returns what the child answers to one turn; `{"error": str}` where it has failed."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._read()

    def end(self) -> dict:
        """Returns what the child says when there are no more turns."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        answer = self._read()
        self._process.wait()
        return answer

    def _read(self) -> dict:
        for line in self._process.stdout:
            if line.startswith(_ANSWER):
                return json.loads(line.removeprefix(_ANSWER))
        if self._failed is None:  # said once, however often it is asked again
            self._errors.seek(0)
            said = self._errors.read().strip()
            print(said[-4000:], file=sys.stderr)
            self._failed = {"error": _error(said, self._process.wait())}
        return self._failed


def _error(said: str, status: int) -> str:
    """Returns the line that names a process's error, not always its last, or says that it was killed."""
    if status < 0:
        return f"killed by signal {-status}" + (", as for want of memory" if status == -signal.SIGKILL else "")
    lines = said.strip().splitlines() or ["it ended without a word"]
    return next((line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)), lines[-1])


def spread(values: list[float]) -> dict:
    """Returns the least, the middle and the most of what was measured."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def is_asked() -> bool:
    """Waits, in a `Child`, for the next turn; returns `False` where there are no more."""
    return bool(sys.stdin.readline())


def answer(given: dict) -> None:
    """Says, in a `Child`, what a turn found, or the end."""
    print(f"\n{_ANSWER}{json.dumps(given)}", flush=True)


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    return f"top-1 {row['test_top1_accuracy']:.1%} in {row['total_s']:.0f} s"


def put_between(text: str, mark: str, table: str) -> str:
    """Returns a page's text with a table between `<!-- mark...-->` and the next `<!-- end -->`."""
    pattern = rf"(<!-- {mark}[^>]*-->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text, count=1, flags=re.DOTALL)


def write(name: str, rows: list[dict], summary: dict | None = None, line=in_words, key=(), device="") -> Path:
    """Writes `results/<name>-<machine>.json` and prints a line a row.

    Args:
        name: str. The question, as the script is called.
        rows: list of dict.
        summary: dict or `None`. What follows from the rows together; goes before them.
        line: function of a row to the text that is printed of it.
        device: str. What the file is named by, instead of the processor.
        key: tuple of str. If given, rows of an earlier result with another key stay; each row has its own commit then.
    """
    machine = describe_machine(device)
    file = RESULTS / f"{name}-{machine['name']}.json"
    commit = _commit()
    versions = {package: version for row in rows for package, version in row.pop("versions", {}).items()}
    if key and file.exists():
        before = json.loads(file.read_text())
        versions = {**before["versions"], **versions}
        rows = [{"commit": before["commit"], **row} for row in before["rows"]] + [
            {**row, "commit": commit} for row in rows
        ]
        # The newer of two, at the place of the older.
        rows = list({tuple(row.get(part) for part in key): row for row in rows}.values())
    result = {
        "machine": machine,
        "versions": versions,
        "commit": commit,
        "command": " ".join([Path(sys.argv[0]).name, *(Path(argument).name for argument in sys.argv[1:])]),
        **(summary or {}),
        "rows": rows,
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        outcome = row.get("error") or line(row)
        print(f"{row.get('backend', ''):<11} {row.get('preset') or row.get('model', ''):<32} {outcome}")
    print(file)
    return file


def describe_machine(device: str = "") -> dict:
    """Describes processor, vector instructions, cores and memory; `name`, of device or processor, is fit for a file."""
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    cores = os.cpu_count()
    memory = next(
        (int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), None
    )
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    vectors = next((name for flag, name in _VECTORS.items() if flag in flags), "")
    brand = "".join(letter if letter.isalnum() else "-" for letter in (device or processor).lower()).strip("-")
    return {
        "name": brand if device else "-".join(filter(None, [f"{cores}x", brand, vectors])),
        "processor": processor,
        "vectors": vectors,
        "vnni": any(flag.endswith("_vnni") for flag in flags),
        "cores": cores,
        "memory_gib": memory,
    }


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


def _commit() -> str:
    """Returns the commit, and whether something is changed since; results that were just measured do not count."""
    root = RESULTS.parents[1]
    described, changed = (
        subprocess.run(["git", *words], capture_output=True, text=True, cwd=root).stdout.strip()
        for words in (["describe", "--always"], ["status", "--porcelain", "--", ".", ":!benchmarks/results"])
    )
    return f"{described}-dirty" if changed else described
