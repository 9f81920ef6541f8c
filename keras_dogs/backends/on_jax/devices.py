"""Spreads steps with `keras.distribution`: one program over all devices of all processes, which sees whole batches."""

import contextlib
import ctypes
import functools
import os
import signal
import sys

import keras
import numpy as np

from keras_dogs import backends
from keras_dogs.backends import keras_inside
from keras_dogs.backends.devices.engine import DeviceOptions
from keras_dogs.backends.devices.engine import SpreadEngine
from keras_dogs.backends.devices.engine import filled_up
from keras_dogs.backends.devices.group import Rendezvous
from keras_dogs.backends.on_jax import layouts
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line


def find_rendezvous(spread: DeviceOptions) -> Rendezvous | None:
    """Finds where the processes meet, from the flags, Slurm or Open MPI; returns `None` for a single process."""
    if spread.coordinator:
        host, _, port = spread.coordinator.rpartition(":")
        return _rendezvous(host, int(port), spread.num_processes, spread.process_id, "--coordinator")
    clusters = keras_inside.find("clusters")
    for cluster in (clusters.SlurmCluster, clusters.OmpiCluster) if clusters else ():
        if cluster.is_env_present() and cluster.get_process_count() > 1:
            told_port = os.environ.get("JAX_COORDINATOR_PORT")
            where = cluster.get_coordinator_address(timeout_secs=60, override_coordinator_port=told_port)
            host, _, port = where.rpartition(":")
            return _rendezvous(host, int(port), cluster.get_process_count(), cluster.get_process_id(), cluster.name)
    return None


def _rendezvous(host: str, port: int, num_processes: int, process: int, source: str) -> Rendezvous | None:
    listens_at = None if process else port
    return Rendezvous(host, port, num_processes, process, source, listens_at) if num_processes > 1 else None


class Devices(SpreadEngine):
    """Trains with `keras.distribution.DataParallel`, or with `ModelParallel` where `--model-shards` is above 1."""

    how = "keras.distribution"

    def __init__(self, group, meeting, spread):
        import jax

        super().__init__(group)
        if isinstance(spread.devices, int):
            # Only for CPUs, as a trial without gain in speed. It fails where JAX has taken its devices before.
            with contextlib.suppress(RuntimeError):
                jax.config.update("jax_num_cpu_devices", min(spread.devices, os.cpu_count() or 1))
        if meeting:
            _say_why_at_abort(group)
        if meeting and not jax.distributed.is_initialized():
            _initialize(meeting, max(int(spread.peer_timeout), 10))
        self.local = jax.local_devices()[: wanted(spread, len(jax.local_devices()))]
        fewest, most = -self.group.agree(-len(self.local)), self.group.agree(len(self.local))
        if fewest != most:
            raise UserError(f"--devices: the processes have {fewest} to {most} devices; give a number that all have")
        everywhere = _first_of_each(jax.devices(), len(self.local)) if meeting else self.local
        self.num_devices = len(everywhere)
        if self.num_devices % spread.model_shards or len(self.local) % spread.model_shards:
            raise UserError(
                f"--model-shards {spread.model_shards}: does not divide the {len(self.local)} devices of a process"
            )
        self.shards = spread.model_shards
        self.mesh = jax.sharding.Mesh(np.array(self.local).reshape(-1, self.shards), ("batch", "model"))
        self.distribution = layouts.distribution(everywhere, self.shards)

    def settle(self, spread):
        if not spread.sync_batch_norm:
            raise UserError("--no-sync-batch-norm: not possible on JAX, where steps see the whole batch; leave it out")

    @contextlib.contextmanager
    def scope(self):
        distribution_lib = keras_inside.module_of("distribute_tensor")
        if distribution_lib is None:
            raise UserError("--devices: this version of Keras cannot train on several devices; give --devices 1")
        kept = distribution_lib.distribute_tensor
        if self.group.num_processes > 1:
            distribution_lib.distribute_tensor = functools.partial(_distribute, kept)
        try:
            with self.distribution.scope():
                yield
        finally:
            distribution_lib.distribute_tensor = kept

    @property
    def num_copies(self):
        return self.num_devices // self.shards

    def check_model(self, model):
        if self.shards > 1 and not layouts.num_divided(model):
            raise UserError(f"--model-shards {self.shards}: divides no weight of this model; only ViTs are divided")

    def make_predictor(self, model):
        """Compiles a predictor for the devices of this process alone."""
        import jax
        from jax.sharding import NamedSharding
        from jax.sharding import PartitionSpec

        parts = len(self.local) // self.shards

        arguments = backends.inference_arguments(model)

        def call(trained, others, batch):
            with self._no_distribution():
                return model.stateless_call(trained, others, batch, **arguments)[0]

        call = jax.jit(call)

        def predict(batch):
            padded = jax.device_put(filled_up(batch, parts), NamedSharding(self.mesh, PartitionSpec("batch")))
            trained, others = (
                [self._here(variable) for variable in variables]
                for variables in (model.trainable_variables, model.non_trainable_variables)
            )
            return np.asarray(call(trained, others, padded))[: len(batch)]

        return predict

    def read(self, variable):
        return np.asarray(self._here(variable))

    def _here(self, variable):
        """Returns a variable's value as an array over the devices of this process alone, without a copy."""
        import jax
        from jax.sharding import NamedSharding
        from jax.sharding import PartitionSpec

        value = variable.value
        shards = {shard.device: shard.data for shard in value.addressable_shards}
        sharding = NamedSharding(self.mesh, getattr(value.sharding, "spec", PartitionSpec()))
        arrays = [shards[device] for device in self.mesh.devices.flat]
        return jax.make_array_from_single_device_arrays(value.shape, sharding, arrays)

    @contextlib.contextmanager
    def _no_distribution(self):
        """Turns Keras' distribution off within the block: its layouts cover the devices of all processes."""
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(self.distribution)


def _initialize(meeting: Rendezvous, timeout: int) -> None:
    """Connects the processes until this one exits, when JAX disconnects it."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours
    where = f"{meeting.host}:{meeting.port}"
    seconds = {"initialization_timeout": timeout, "heartbeat_timeout_seconds": timeout}
    try:
        # Flags hold even inside a step of Slurm. Without them, JAX may add what it detects: one GPU for each process.
        detection = {"cluster_detection_method": "deactivate"} if meeting.source == "--coordinator" else {}
        jax.distributed.initialize(where, meeting.num_processes, meeting.process, **seconds, **detection)
    except RuntimeError as error:
        raise UserError(f"{meeting.source} {where}: {first_line(error)}") from error


def _first_of_each(devices: list, count: int) -> list:
    """Returns the first `count` devices of each process, in the order of the processes."""
    by_process = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    return [device for process in sorted(by_process) for device in by_process[process][:count]]


def _say_why_at_abort(group) -> None:
    """Makes an abort of jaxlib, as when process 0 is gone, say why the training ended, and end with status 2."""

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def say(_):
        print(f"keras_dogs.train: error: {group.why(3.0) or 'JAX ended this process'}", file=sys.stderr, flush=True)
        os._exit(2)

    ctypes.CDLL(None).signal(signal.SIGABRT, say)
    _kept.append(say)


_kept: list = []  # functions that C may call must stay referenced


def _distribute(kept, tensor, layout):
    """Replaces Keras' `distribute_tensor` for an array of which each process holds the same copy.

    JAX 0.10.2 refuses to send such an array to the devices of all processes, or, where it is not bound to a device,
    makes an array that cannot be taken apart again.
    """
    import jax

    layout = getattr(layout, "backend_layout", layout)
    if isinstance(tensor, jax.core.Tracer) or not getattr(tensor, "is_fully_addressable", True):
        return kept(tensor, layout)
    return jax.make_array_from_callback(tensor.shape, layout, lambda index: tensor[index])


def wanted(spread: DeviceOptions, there: int) -> int:
    """Returns the number of devices that this process uses (`--devices`), of those that it has."""
    if spread.devices in (None, "all"):
        return there
    if spread.devices > there:
        raise UserError(f"--devices {spread.devices}: there are {there} here")
    return spread.devices
