"""Runs a comparison, as `compare` does: one child process per run, finished runs reused, and the report at the end.

Nothing here loads Keras.
"""

import os
import subprocess
import time
from pathlib import Path

from rich.live import Live
from rich.table import Table

from keras_dogs.comparison import page
from keras_dogs.comparison import plan
from keras_dogs.comparison import results
from keras_dogs.comparison.config import CompareConfig
from keras_dogs.comparison.plan import PlannedRun
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.runs import artifacts
from keras_dogs.runs.records import RunRecord
from keras_dogs.system import children
from keras_dogs.system import ownership
from keras_dogs.system import posix
from keras_dogs.system import progress
from keras_dogs.system import signals

LOGS = page.LOGS
_SECONDS_TO_SAVE = 120.0  # for a child that is told to stop
_SECONDS_BETWEEN_LOOKS = 0.2


def compare_runs(config: CompareConfig) -> dict:
    """Trains the runs that are missing, and writes `report.md`, `report.html`, figures and `results.json`.

    Returns:
        What is in `results.json`.

    Raises:
        UserError: there is nothing to compare, or a file cannot be written.
        Interrupted: Ctrl-C or SIGTERM; repeating the command resumes the comparison.
    """
    ownership.check_output(config.output, ownership.COMPARE, page.is_of_earlier_version)
    if config.pair or config.presets:
        plan.check(config)
    with artifacts.errors_in_words(config.output):
        config.output.mkdir(parents=True, exist_ok=True)
        with artifacts.locked(config.output, "comparison runs"):
            page.claim(config.output)
            return _compare(config)


def _compare(config: CompareConfig) -> dict:
    planned: list[PlannedRun] = []
    errors: dict[Path, str] = {}
    if config.pair or config.presets:
        planned = plan.plan_runs(config, _epochs(config))
        errors = Children(config).run(planned)
    with progress.busy("Comparing the runs"):
        found = results.collect(config, planned, errors)
    failed = [run for run in found["runs"] if "error" in run]
    if not planned and len(failed) == len(found["runs"]):
        raise UserError("; ".join(f"--from {run['folder']}: {run['error']}" for run in failed))
    with progress.busy("Writing the report"):
        page.write_report(found, config.output)
    return found


def _epochs(config: CompareConfig) -> dict | None:
    if config.budget == "flops":
        return plan.epochs_of_equal_flops(config)
    if config.budget == "epochs":
        return None
    pilots = plan.plan_pilots(config)
    errors = Children(config).run(pilots)
    if errors:
        folder, error = next(iter(errors.items()))
        raise UserError(f"--budget time: the run of one epoch {folder.name} failed, so its time is not known: {error}")
    seconds = {(run.preset, run.backend): _seconds_of_probe_and_epoch(run) for run in pilots}
    first, epochs = plan.presets_of(config)[0], plan.epochs_of_first(config)
    found = {}
    for (preset, backend), (probe, epoch) in seconds.items():
        probe_of_first, epoch_of_first = seconds[first, backend]
        found[preset, backend] = max(1, round((probe_of_first + epochs * epoch_of_first - probe) / epoch))
    return found


def _seconds_of_probe_and_epoch(run: PlannedRun) -> tuple[float, float]:
    record = RunRecord.load(run.folder / artifacts.RECORD)
    if record.timings.features_s:
        raise UserError(
            "--budget time: a linear probe takes the time of its features, whatever the epochs; leave it out"
        )
    return record.timings.probe_s, record.dataset.num_train / record.throughput.train_images_per_second


class Children:
    """Starts and watches the child processes of a comparison, and shows their progress.

    Args:
        config: `CompareConfig`.
    """

    def __init__(self, config: CompareConfig):
        self.logs, self.gpus = config.output / LOGS, list(config.gpus)
        self.jobs = config.jobs or len(config.gpus) or 1
        self.console = progress.open_console()
        self.running: dict[subprocess.Popen, tuple[PlannedRun, float, str | None]] = {}
        self.states: dict[Path, str] = {}
        self.errors: dict[Path, str] = {}
        self.seconds: list[float] = []

    def run(self, planned: list[PlannedRun]) -> dict[Path, str]:
        """Makes every run that is not finished; returns the reason for each failure, by folder."""
        waiting = []
        for run in planned:
            finished = artifacts.is_finished(run.folder)
            self.states[run.folder] = "finished before" if finished else "waiting"
            if not finished and not plan.is_installed(run.backend):
                self._fail(run, f"{run.backend} is not installed: {install_line(run.backend)}")
            elif not finished:
                waiting.append(run)
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                while waiting or self.running:
                    while waiting and len(self.running) < self.jobs:
                        self._start(waiting.pop(0))
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                    self._look()
                    if self.console.is_terminal:
                        live.update(self._overview(planned, waiting), refresh=True)
        except (KeyboardInterrupt, signals.Stopped) as stop:
            status = stop.code if isinstance(stop, signals.Stopped) else 130
            raise Interrupted("stopped; what is finished is kept, and the same command goes on", status) from stop
        finally:
            self._stop()
        return self.errors

    def _start(self, run: PlannedRun) -> None:
        gpu = self.gpus.pop(0) if self.gpus else None
        environment = {**os.environ, "KERAS_BACKEND": run.backend, "PYTHONUNBUFFERED": "1"}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        # Resumes an earlier try that left a checkpoint; without one, `--resume` starts from the beginning.
        arguments = [*run.arguments, "--resume"]
        # A child of an earlier comparison that was killed may still be saving.
        artifacts.wait_until_free(run.folder, _SECONDS_TO_SAVE)
        with self._log(run).open("w", encoding="utf-8") as log:
            child = children.start(arguments, environment, log)
        self.running[child] = (run, time.monotonic(), gpu)
        self.states[run.folder] = "running"
        self.console.print(f"begun: {run.name}")

    def _look(self) -> None:
        """Records the result of each child that has ended."""
        for child in [child for child in self.running if child.poll() is not None]:
            run, began, gpu = self.running.pop(child)
            if gpu is not None:
                self.gpus.append(gpu)
            if child.returncode == 0 and artifacts.is_finished(run.folder):
                self.seconds.append(time.monotonic() - began)
                record = RunRecord.load(run.folder / artifacts.RECORD)
                self.states[run.folder] = f"test top-1 {record.test.top1_accuracy:.1%}"
                self.console.print(f"finished: {run.name}: {self.states[run.folder]} in {self.seconds[-1]:.0f} s")
            else:
                self._fail(run, _why(self._log(run), child.returncode))

    def _fail(self, run: PlannedRun, why: str) -> None:
        self.errors[run.folder] = why
        self.states[run.folder] = f"failed: {why}"
        self.console.print(f"failed: {run.name}: {why}")

    def _log(self, run: PlannedRun) -> Path:
        return self.logs / f"{run.folder.name}.log"

    def _overview(self, planned: list[PlannedRun], waiting: list) -> Table:
        table = Table(title=self._time_left(len(waiting)), title_justify="left", box=None)
        for column in ("model", "backend", "seed", ""):
            table.add_column(column)
        logs = {run.folder: _last_line(self._log(run)) for run, *_ in self.running.values()}
        for run in planned:
            state = logs.get(run.folder) or self.states[run.folder]
            table.add_row(plan.short_name(run.preset), run.backend, str(run.seed), state[:90])
        return table

    def _time_left(self, num_waiting: int) -> str:
        done = sum(state not in ("waiting", "running") for state in self.states.values())
        text = f"{done} of {len(self.states)} runs done"
        if not self.seconds:
            return text
        mean = sum(self.seconds) / len(self.seconds)
        spent = sum(min(time.monotonic() - began, mean) for _, began, _ in self.running.values())
        num_left = num_waiting + len(self.running)
        left = (num_left * mean - spent) / max(min(self.jobs, num_left), 1)
        return f"{text}, about {left / 60:.0f} min left"

    def _stop(self) -> None:
        """Tells running children to save and stop, and kills any that take too long, or when asked again."""
        try:
            for child in self.running:
                posix.tell_to_stop(child)
            for child in self.running:
                child.wait(_SECONDS_TO_SAVE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt, signals.Stopped):
            for child in self.running:
                child.kill()
                child.wait()


def _why(log: Path, status: int) -> str:
    line = _last_line(log).removeprefix("keras_dogs.train: ").removeprefix("error: ")
    if status < 0:
        name = posix.name_of_signal(-status)
        return f"killed by signal {-status} ({name}){', possibly out of memory' * (name == 'SIGKILL')}; see {log}"
    return line or f"exit status {status}; see {log}"


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if any(map(str.isalnum, line))), "")
