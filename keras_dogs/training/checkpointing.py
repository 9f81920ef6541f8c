"""The callback that saves everything the next step depends on, and goes on from what an earlier process saved."""

import dataclasses
import time

import keras

from keras_dogs.backends import devices
from keras_dogs.errors import Interrupted
from keras_dogs.errors import UserError
from keras_dogs.runs.records import Scores
from keras_dogs.training.callbacks import share_statistics
from keras_dogs.training.checkpoints import Checkpoints
from keras_dogs.training.checkpoints import restore
from keras_dogs.training.stopping import StopRequest


class Checkpointing(keras.callbacks.Callback):
    """Saves everything that the next step depends on, restores it in a resumed run, and stops the run on request.

    Runs after `StepLog` and `Validation`, whose logs it keeps.

    Args:
        checkpoints: `Checkpoints`.
        every: int. Steps from one checkpoint to the next; one is also saved after each epoch.
        step_log: `StepLog`.
        validation: `Validation`.
        stop: `StopRequest`.
        started: float. `time.perf_counter()` when the command began.
        how_to_go_on: str. How to resume, for the message that is shown when training is stopped.
        steps_per_epoch: int.
        digest: str. A digest of the pictures: a run can only be resumed with the pictures that it was begun with.
    """

    def __init__(self, checkpoints, every, step_log, validation, stop, started, how_to_go_on, steps_per_epoch, digest):
        super().__init__()
        self.checkpoints: Checkpoints = checkpoints
        self.stop: StopRequest = stop
        self.every, self.how_to_go_on, self.digest = every, how_to_go_on, digest
        self.step_log, self.validation, self.steps_per_epoch = step_log, validation, steps_per_epoch
        self.epoch_end_s: list[float] = []
        self.probe_s, self.probe_end_s = 0.0, None
        self._arrays = None
        self._train_s_before, self._command_s_before = 0.0, 0.0
        self._began, self._started = time.perf_counter(), started

    def follow(self, probe_s: float, command_s_before: float) -> None:
        """Notes the seconds of a probe that has just ended, and of the processes that were killed in it."""
        self.probe_s, self._command_s_before = probe_s, command_s_before
        self.probe_end_s = self.command_s()

    def load(self) -> int:
        """Reads the newest checkpoint, to be restored when the first epoch begins; returns the number of steps done.

        Raises:
            UserError: the pictures that can be read now are not those of the checkpoint.
        """
        found = self.checkpoints.load()
        if found is None:
            return 0
        self._arrays, state = found
        if state.get("digest", self.digest) != self.digest:
            raise UserError(
                "--resume: other pictures can be read now than when the run was begun; bring them to what they were, "
                "or give --overwrite to start again"
            )
        self.step_log.rows[:] = state["steps"]
        self.validation.rows[:] = state["history"]
        self.validation.best_epoch = state["best_epoch"]
        self.validation.best_scores = Scores(**state["best_scores"]) if state["best_scores"] else None
        self.validation.probe_scores = Scores(**state["probe_scores"]) if state["probe_scores"] else None
        self.probe_s, self.probe_end_s = state["probe_s"], state["probe_end_s"]
        self._train_s_before, self._command_s_before = state["train_s"], state["command_s"]
        self.epoch_end_s[:] = state["epoch_end_s"]
        self.step_log.step_seconds[:], self.step_log.first_steps[:] = state["step_seconds"], state["first_steps"]
        return state["step"]

    def train_s(self) -> float:
        """Adds up the seconds of all parts of the training."""
        return self._train_s_before + time.perf_counter() - self._began

    def command_s(self) -> float:
        """Returns seconds since the command began, those of earlier parts included."""
        return self._command_s_before + time.perf_counter() - self._started

    def on_epoch_begin(self, epoch, logs=None):
        self.put_back(self.model)  # not before: Keras resets the metrics just now

    def put_back(self, model: keras.Model) -> None:
        """Gives the model what `load` read."""
        if self._arrays is not None:
            restore(model, self._arrays)
            self._arrays = None

    def on_train_batch_end(self, batch, logs=None):
        done = self.step_log.num_steps
        if done % self.steps_per_epoch == 0:
            return  # the epoch's end is next, and its checkpoint
        status = self._agreed_status()
        if status or done % self.every == 0:
            self.step_log.read()
            self._save(status)

    def on_epoch_end(self, epoch, logs=None):
        self.model.reset_metrics()  # what comes next is another epoch
        self.epoch_end_s.append(self.command_s())
        self._save(self._agreed_status())

    def _agreed_status(self) -> int:
        """Returns the exit status if any process was asked to stop, else 0, so that all stop after the same step."""
        return devices.current().group.agree(self.stop.status)

    def _save(self, stop_status: int):
        best, probe = self.validation.best_scores, self.validation.probe_scores
        state = {
            "step": len(self.step_log.rows),
            "digest": self.digest,
            "best_epoch": self.validation.best_epoch,
            "best_scores": dataclasses.asdict(best) if best else None,
            "probe_scores": dataclasses.asdict(probe) if probe else None,
            "probe_s": self.probe_s,
            "probe_end_s": self.probe_end_s,
            "steps": self.step_log.rows,
            "history": self.validation.rows,
            "train_s": self.train_s(),
            "command_s": self.command_s(),
            "epoch_end_s": self.epoch_end_s,
            "step_seconds": self.step_log.step_seconds,
            "first_steps": self.step_log.first_steps,
        }
        share_statistics(self.model)
        self.checkpoints.save(self.model, state)
        if stop_status:
            devices.current().group.agree(0)  # no process ends before the first one has written the checkpoint
            step = f"step {state['step']:,}"
            raise Interrupted(f"stopped after {step}, which is saved; {self.how_to_go_on}", stop_status)
