"""Makes batches to train on, in an order set by (seed, epoch) alone, and predicts in batches."""

import time
import zlib

import keras
import numpy as np
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.backends.devices.engine import filled_up
from keras_dogs.data.loaders.stream import Undecoded
from keras_dogs.data.loaders.stream import fetch_ahead
from keras_dogs.errors import UserError


class TrainingBatches(keras.utils.PyDataset):
    """Shuffles pictures into full batches; the remainder is left out, and is a different one in each epoch.

    Where several processes train, each gets its own rows of every batch.

    `EpochOrder` must be among the callbacks of `fit`, or each epoch has the order of the first. (The dataset's own
    `on_epoch_end` would not do: Keras calls it once more than there are epochs, as it draws a batch before the first.)

    Args:
        images: array of shape `(num_pictures, ...)`: uint8 canvases, features of a frozen backbone, or places in a
            table on the device. Batches of `Undecoded` ones are fetched ahead.
        labels: int32 array of shape `(num_pictures,)`.
        batch_size: int. Reduced to `num_pictures` if it is larger.
        seed: int.
        balanced: bool. Whether an epoch has equally many pictures of every class: of a large class, some are left out,
            drawn anew in each epoch; those of a small class are repeated.
        epoch: int. The first epoch, from 0; a resumed run gets the order that it would have had.

    Attributes:
        error: `UserError` or `None`. Set when a picture cannot be read, as a backend may wrap the exception.
    """

    def __init__(self, images, labels, batch_size: int, seed: int, balanced: bool = False, epoch: int = 0):
        super().__init__()
        self.images, self.labels = images, labels
        self.batch_size = min(batch_size, len(labels))
        self.seed, self.balanced = seed, balanced
        self.error: UserError | None = None
        self._send = backends.sender()
        self.start(epoch)

    def start(self, epoch: int, batch: int = 0) -> None:
        """Goes to a batch of an epoch, both from 0; only this epoch skips the batches before it."""
        self.epoch, self._first = epoch, batch
        self._order = self._shuffle()
        self._fetched, self._next = None, 0

    def __len__(self):
        return len(self.labels) // self.batch_size - self._first

    def __getitem__(self, index):
        try:
            return self._fetch(index) if isinstance(self.images, Undecoded) else self._collect(index)
        except UserError as error:
            self.error = error
            raise

    def _fetch(self, index):
        if self._fetched is None or index != self._next:
            self._fetched = fetch_ahead(self._collect, len(self), index)
        self._next = index + 1
        return next(self._fetched)

    def digest_of(self, index: int) -> int:
        """Returns the CRC-32 of the indices of a batch's pictures, in order, those of all processes included."""
        return zlib.crc32(self._places(index).astype("<i8").tobytes())

    def _places(self, index: int) -> np.ndarray:
        index += self._first
        return self._order[index * self.batch_size : (index + 1) * self.batch_size]

    def _collect(self, index):
        places = self._places(index)[devices.current().rows(self.batch_size)]
        return self._send(self.images[places]), self._send(self.labels[places])

    def _shuffle(self):
        generator = np.random.default_rng([self.seed, self.epoch])
        return self._balanced_order(generator) if self.balanced else generator.permutation(len(self.labels))

    def _balanced_order(self, generator):
        classes = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        share, rest = divmod(len(self.labels), len(classes))
        # Each epoch draws anew which classes get one picture more.
        more = np.isin(np.arange(len(classes)), generator.permutation(len(classes))[:rest])
        drawn = []
        for members, count in zip(classes, share + more):
            rounds = [generator.permutation(members) for _ in range(-(-count // len(members)))]
            drawn.append(np.concatenate(rounds)[:count])
        return generator.permutation(np.concatenate(drawn))


class EpochOrder(keras.callbacks.Callback):
    """Gives each epoch its own order.

    Args:
        batches: `TrainingBatches`.
        first: int. The batch, from 0, with which the first epoch begins.
    """

    def __init__(self, batches: TrainingBatches, first: int = 0):
        super().__init__()
        self.batches, self.first = batches, first

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the epoch's order of batches."""
        self.batches.start(epoch, self.first)
        self.first = 0


def padded_batches(images, batch_size: int, first: int = 0, stride: int = 1):
    """Yields `(number, batch, num_real)` in order; the last batch is filled up, so that only one shape is compiled.

    Args:
        images: array of shape `(num_pictures, ...)`.
        batch_size: int.
        first: int. The number of the first batch.
        stride: int. The step from one batch number to the next.
    """
    batch_size = max(1, min(batch_size, len(images)))
    numbers = range(first, -(-len(images) // batch_size), stride)

    def collect(index: int):
        number = numbers[index]
        batch = images[number * batch_size : (number + 1) * batch_size]
        return number, filled_up(batch, batch_size), len(batch)

    count = len(numbers)
    yield from fetch_ahead(collect, count) if isinstance(images, Undecoded) else map(collect, range(count))


def predict_in_batches(model: keras.Model, images, batch_size: int, on_batch=None) -> tuple[np.ndarray, float]:
    """Runs a model over one or more canvases (or features), and returns the outputs in the same order.

    Several processes share the batches between them, and every process returns all outputs.

    Args:
        model: `keras.Model` of one input and one output; if it has `go_to(number)`, that is called before each batch.
        images: array of shape `(num_pictures, ...)`.
        batch_size: int.
        on_batch: function called for each batch, for progress.

    Returns:
        The outputs as a float32 array `(num_pictures, ...)`, and the pictures per second, without the first batch.

    Raises:
        UserError: there are no pictures.
    """
    if not len(images):
        raise UserError("there are no pictures to compute anything of")
    engine = devices.current()
    getattr(model, "forget_stale_functions", lambda: None)()
    predict, group, go_to = engine.predictor(model) or _predictor(model), engine.group, getattr(model, "go_to", None)
    outputs, clock, rows, unread = [], [time.perf_counter()], [], []

    def read():
        found, num_real = unread.pop(0)
        outputs.append(np.asarray(ops.convert_to_numpy(found), np.float32)[:num_real])
        clock.append(time.perf_counter())
        for _ in range(group.num_processes if on_batch else 0):
            on_batch()

    for number, batch, num_real in padded_batches(images, batch_size, group.process, group.num_processes):
        if go_to:
            go_to(number)
        with engine.scoring():
            unread.append((predict(batch), num_real))
        rows.append(number * len(batch) + np.arange(num_real))
        if len(unread) > 1 or not outputs:  # the device is busy with the next; the first is not timed
            read()
    while unread:
        read()
    num_first = len(outputs[0]) if len(outputs) > 1 else 0
    seconds = clock[-1] - clock[1 if num_first else 0]
    images_per_second = (sum(map(len, outputs)) - num_first) / seconds if outputs else 0.0
    if group.num_processes > 1:
        outputs, rows, images_per_second = _from_all(group, outputs, rows, images_per_second)
    whole = np.empty((len(images), *outputs[0].shape[1:]), np.float32)
    whole[np.concatenate(rows)] = np.concatenate(outputs)
    return whole, images_per_second


def _predictor(model: keras.Model):
    """Returns the backend's predictor, compiled once for each model."""
    if not hasattr(model, "unread_outputs"):
        model.unread_outputs = backends.predictor(model)
    return model.unread_outputs


def _from_all(group, outputs: list, rows: list, images_per_second: float):
    """Gathers the outputs and rows of all processes, and the sum of their rates."""
    outputs, rows = (
        group.gather(np.concatenate(part) if part else np.zeros(0, np.float32)) for part in (outputs, rows)
    )
    rates = group.gather(np.array(images_per_second))
    there = [number for number, part in enumerate(rows) if len(part)]
    outputs = [outputs[number] for number in there]
    return outputs, [rows[number].astype(np.int64) for number in there], float(sum(rates))
