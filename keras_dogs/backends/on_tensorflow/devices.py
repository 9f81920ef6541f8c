"""`tf.distribute`: `MirroredStrategy` in one process, `MultiWorkerMirroredStrategy` where `TF_CONFIG` names several."""

import contextlib
import copy
import faulthandler
import functools
import json
import os
import sys

import numpy as np

from keras_dogs import backends
from keras_dogs.backends import keras_inside
from keras_dogs.backends.devices.engine import DeviceOptions
from keras_dogs.backends.devices.engine import SpreadEngine
from keras_dogs.backends.devices.engine import check_count
from keras_dogs.backends.devices.engine import filled_up
from keras_dogs.backends.devices.group import Rendezvous
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line


def find_rendezvous(spread: DeviceOptions) -> Rendezvous | None:
    """Reads where to meet from `TF_CONFIG`; returns `None` for a single worker."""
    if not os.environ.get("TF_CONFIG"):
        return None
    try:
        given = json.loads(os.environ["TF_CONFIG"])
        cluster, task = given.get("cluster", {}), given.get("task", {})
        workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
        if len(workers) < 2:
            return None
        process = int(task["index"]) + (len(cluster.get("chief", [])) if task["type"] == "worker" else 0)
        host, _, port = workers[0].rpartition(":")
        own_port = int(workers[process].rpartition(":")[2])
        return Rendezvous(host, int(port), len(workers), process, "TF_CONFIG", own_port)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"TF_CONFIG: cannot be read ({type(error).__name__}: {error}); it is like "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from error


class Devices(SpreadEngine):
    """A copy of the model on each device; gradients are summed once a step."""

    updates_copies = True

    def __init__(self, group, meeting, spread):
        import tensorflow as tf

        super().__init__(group)
        if spread.model_shards > 1:
            raise UserError(f"--model-shards {spread.model_shards}: on JAX alone (docs/scaling.md)")
        devices = _take(tf, spread, meeting)
        try:
            # The start of workers holds the interpreter's lock while it waits: a watch that needs none.
            if meeting:
                faulthandler.dump_traceback_later(spread.peer_timeout, exit=True, file=sys.__stderr__)
            self.strategy = _strategy(None if meeting else tuple(devices))
        except (RuntimeError, tf.errors.OpError) as error:
            raise UserError(f"{meeting.source if meeting else '--devices'}: {first_line(error)}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.how = type(self.strategy).__name__.removesuffix("V1")
        self.num_devices = self.num_shares = self.strategy.num_replicas_in_sync
        self._local = self.num_devices // self.group.num_processes

    def settle(self, spread):
        self.synchronised = spread.sync_batch_norm
        if spread.dtype_policy == "mixed_float16":
            raise UserError(
                "--dtype-policy mixed_float16: not on several devices of TensorFlow, where Keras decides on each "
                "whether a step counts; mixed_bfloat16 needs no such decision"
            )

    @contextlib.contextmanager
    def scope(self):
        trainer = keras_inside.module_of("reduce_per_replica")
        if trainer is None or keras_inside.find("base_optimizer") is None:
            raise UserError("--devices: this version of Keras cannot train on several devices; give --devices 1")
        kept = trainer.reduce_per_replica
        # Metrics are summed up over the devices already; and Keras' own fails on scalars where there are workers.
        trainer.reduce_per_replica = _first_of_each
        try:
            with self.strategy.scope():
                yield
        finally:
            trainer.reduce_per_replica = kept

    def prepare(self, model):
        # Or Keras would build it from a first batch, which it cannot read where there are workers. It is built, and the
        # strategy is that of the scope.
        model._distribute_strategy = None

    def feed(self, batches):
        """Yields each device's rows in turn, over all epochs, so that prefetching does not stop between them."""
        import tensorflow as tf

        def rows():
            own = copy.copy(batches)
            while True:
                try:
                    for number in range(len(own)):
                        yield from zip(*(np.split(part, self._local) for part in own[number]))
                except UserError as error:
                    batches.error = error
                    raise
                own.start(own.epoch + 1)

        signature = tuple(
            tf.TensorSpec((len(part) // self._local, *part.shape[1:]), tf.as_dtype(part.dtype)) for part in batches[0]
        )

        def of_worker(context):
            found = tf.data.Dataset.from_generator(rows, output_signature=signature)
            endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            return found.apply(endless).prefetch(tf.data.AUTOTUNE)

        return {"x": self.strategy.distribute_datasets_from_function(of_worker), "steps_per_epoch": len(batches)}

    def make_predictor(self, model):
        import tensorflow as tf

        arguments = backends.inference_arguments(model)
        call = tf.function(lambda batch: self.strategy.run(model, (batch,), arguments))

        def predict(batch):
            shares = np.split(filled_up(batch, self._local), self._local)
            first = self.group.process * self._local
            values = self.strategy.experimental_distribute_values_from_function(
                lambda context: tf.convert_to_tensor(shares[context.replica_id_in_sync_group - first])
            )
            outputs = self.strategy.experimental_local_results(call(values))
            return np.concatenate([output.numpy() for output in outputs])[: len(batch)]

        return predict

    def read(self, variable):
        return self.local_values(variable)[0]

    def local_values(self, variable):
        return [value.numpy() for value in self.strategy.experimental_local_results(variable.value)]

    def first_place(self, share):
        context = _context()
        first = self.group.process * self._local if self.scores else 0  # this process has the whole batch then
        return (context.replica_id_in_sync_group - first) * share if context else 0

    def whole_batch(self, tensor):
        import tensorflow as tf

        context = _context()
        if context is None:
            return tensor
        # A sum with zeros for the other shares: `all_gather` fails where there are workers (2.21).
        mine = tf.one_hot(context.replica_id_in_sync_group, self.num_shares, dtype=tensor.dtype)
        spread = tf.reshape(mine, (-1, *[1] * tensor.shape.rank)) * tensor[None]
        whole = context.all_reduce(tf.distribute.ReduceOp.SUM, spread)
        return tf.reshape(whole, (-1, *tensor.shape[1:]))

    def mean_over_shares(self, tensor):
        import tensorflow as tf

        context = _context()
        return context.all_reduce(tf.distribute.ReduceOp.MEAN, tensor) if context else tensor

    def whole_loss(self, loss):
        import tensorflow as tf

        context = _context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, loss) if context else loss  # Keras has divided it

    def sum_gradients(self, gradients):
        import tensorflow as tf

        there = [gradient for gradient in gradients if gradient is not None]
        summed = iter(_context().all_reduce(tf.distribute.ReduceOp.SUM, there))
        return [None if gradient is None else next(summed) for gradient in gradients]


def _first_of_each(values, strategy, reduction):
    import tensorflow as tf

    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], values)


@functools.cache
def _strategy(devices: tuple[str, ...] | None):
    """Returns the one strategy of this process; a second one would reuse the numbers of collective operations.

    Args:
        devices: tuple of str, or `None` for those of all workers.
    """
    import tensorflow as tf

    if devices is None:
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.MirroredStrategy(devices)


def _context():
    """Returns the replica context of this share's part of a step; `None` while a model is built."""
    import tensorflow as tf

    return tf.distribute.get_replica_context()


def _take(tf, spread: DeviceOptions, meeting) -> list[str] | None:
    """Returns the devices of this process. Of CPUs there may be more than one: a trial that gains nothing."""
    there = tf.config.list_physical_devices("GPU")
    count = spread.devices if isinstance(spread.devices, int) else None
    if count:
        check_count(count, len(there))
    if there:
        tf.config.set_visible_devices(there[:count], "GPU")
        return [f"GPU:{number}" for number in range(count or len(there))]
    with contextlib.suppress(RuntimeError):  # the devices were taken before
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * (count or 1))
    if meeting:
        return None  # its strategy takes what there is, and must be the first to look
    there = tf.config.list_logical_devices("CPU")
    if count and count > len(there):
        raise UserError(f"--devices {count}: there are {len(there)} here")
    return [f"CPU:{number}" for number in range(count or 1)]
