"""What a training needs of the engine that spreads its steps over devices; alone, of one device."""

import contextlib
import os
from typing import NamedTuple

import numpy as np

from keras_dogs.backends.devices.group import Group
from keras_dogs.errors import UserError


class DeviceOptions(NamedTuple):
    """How a training is to be spread: flags of `train`, and its precision, which not every engine has.

    Attributes:
        devices: int, `"all"` or `None`. Of this host.
        model_shards: int. Devices over which each copy of the model is divided.
        coordinator: str or `None`. `HOST:PORT` of the first process.
        num_processes: int or `None`.
        process_id: int or `None`. Which of them this one is, from 0.
        peer_timeout: float. Seconds to wait for a sign of life of another process.
        sync_batch_norm: bool. Whether batch norms have the statistics of the whole batch.
        dtype_policy: str. The precision of the backbone.
    """

    devices: int | str | None = None
    model_shards: int = 1
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    peer_timeout: float = 300.0
    sync_batch_norm: bool = True
    dtype_policy: str = "float32"


def check_count(wanted: int, num_gpus: int) -> None:
    """Refuses more devices than there are on this host: GPUs, or where there is none, cores to try it on.

    Raises:
        UserError: it says how many there are.
    """
    if num_gpus and wanted > num_gpus:
        raise UserError(f"--devices {wanted}: there are {num_gpus} here")
    if not num_gpus and wanted > (os.cpu_count() or 1):
        raise UserError(f"--devices {wanted}: there is no GPU here, and {os.cpu_count()} cores to try it on")


def filled_up(batch: np.ndarray, multiple: int) -> np.ndarray:
    """Returns a batch with its first row repeated at its end until its length is a multiple of a number."""
    missing = -len(batch) % multiple
    return np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)]) if missing else batch


class Engine:
    """One process, one device: nothing is spread, and the layers' questions have short answers.

    An engine of several devices says how a step's batch is divided. Where the graph sees a part of it, a *share*, the
    layers ask for what is of the whole batch; on JAX the graph sees the whole.

    Attributes:
        group: `Group`. The processes.
        num_devices: int. Of all processes.
        num_shares: int. Parts of a batch that the graph is run on; 1 where it sees the whole.
        synchronised: bool. Whether batch norms have the statistics of the whole batch.
        scores: bool. Whether each process has whole batches of its own just now, as `predictor` takes them.
    """

    num_devices = num_shares = 1
    synchronised, scores = True, False
    # Whether each copy of a variable is updated where it is, by gradients that are the same everywhere.
    updates_copies = False

    def __init__(self, group: Group | None = None):
        self.group = group or Group()

    @property
    def in_words(self) -> str:
        """For the record."""
        if self.num_devices == 1:
            return "one device"
        processes = f"{self.group.num_processes} processes, " if self.group.num_processes > 1 else ""
        copies = f", {self.num_copies} copies of the model" if self.num_copies < self.num_devices else ""
        norms = "of the whole batch" if self.synchronised else "of each device's share"
        return f"{processes}{self.num_devices} devices with {self.how}{copies}; statistics of batch norms {norms}"

    how = ""

    @property
    def num_copies(self) -> int:
        """Copies of the model, between which a batch is divided."""
        return self.num_devices

    def rows(self, batch_size: int) -> slice:
        """Returns which rows of a step's batch this process reads."""
        share = batch_size // self.group.num_processes
        return slice(self.group.process * share, (self.group.process + 1) * share)

    def settle(self, spread: DeviceOptions) -> None:
        """Takes the flags that a resumed run was begun with, whatever this process was told."""

    @contextlib.contextmanager
    def scoring(self):
        """Returns a context in which each process has whole batches of its own."""
        self.scores = True
        try:
            yield
        finally:
            self.scores = False

    def scope(self):
        """Returns a context in which models and optimizers are made and trained."""
        return contextlib.nullcontext()

    def check_model(self, model) -> None:
        """Refuses a model that cannot be spread as the flags say."""

    def prepare(self, model) -> None:
        """Makes a compiled model train on all devices."""

    def feed(self, batches) -> dict:
        """Returns the data arguments of `fit`: batches of this process' rows, as `TrainingBatches` makes them."""
        return {"x": batches}

    def predictor(self, model):
        """Returns a function from a batch of this process, an array, to the model's outputs; `None` for the usual."""
        return None

    def read(self, variable) -> np.ndarray:
        """Returns the value of a variable, whole."""
        from keras import ops

        return ops.convert_to_numpy(variable.value)

    def local_values(self, variable) -> list[np.ndarray]:
        """Returns a variable as each device of this process has it, where they differ."""
        return [self.read(variable)]

    # In the graph, of a share

    def first_place(self, share: int):
        """Returns the place in the whole batch of the share's first picture; `share` is the number of its pictures."""
        return 0

    def whole_batch(self, tensor):
        """Returns the tensor of all shares, one after the other; no gradient goes through it."""
        return tensor

    def mean_over_shares(self, tensor):
        """Returns the mean of a tensor over the shares; the gradient goes through it."""
        return tensor

    def whole_loss(self, loss):
        """Returns the loss of the whole batch, given that of a share."""
        return self.mean_over_shares(loss)

    def sum_gradients(self, gradients: list) -> list:
        """Sums gradients over the shares, unless the engine has done so already."""
        return gradients

    def forget(self) -> None:
        """Lets go of the models of a run that is done."""

    def close(self) -> None:
        """Lets go of the devices."""


class SpreadEngine(Engine):
    """What engines of several devices have in common: they compile a model's predictor once, and keep it."""

    def __init__(self, group: Group | None = None):
        super().__init__(group)
        self._predictors: dict = {}

    def predictor(self, model):
        """See `Engine`."""
        if model not in self._predictors:
            self._predictors[model] = self.make_predictor(model)
        return self._predictors[model]

    def make_predictor(self, model):
        """Returns the same, compiled anew."""
        return model.predict_on_batch

    def forget(self) -> None:
        """Lets go of the models."""
        self._predictors.clear()
