"""Trains on several devices with `torch.distributed`: one process per device, from `torchrun` or `--devices`."""

import atexit
import datetime
import functools
import os

import keras

from keras_dogs import backends
from keras_dogs.backends import keras_inside
from keras_dogs.backends.devices.engine import DeviceOptions
from keras_dogs.backends.devices.engine import SpreadEngine
from keras_dogs.backends.devices.group import Rendezvous
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line


def find_rendezvous(spread: DeviceOptions) -> Rendezvous | None:
    """Reads where to meet from the environment that `torchrun` sets; returns `None` for a single process."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    try:
        host, port, process = (os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"))
        return Rendezvous(host, int(port), int(os.environ["WORLD_SIZE"]), int(process), "MASTER_ADDR and MASTER_PORT")
    except (KeyError, ValueError) as error:
        raise UserError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: MASTER_ADDR, MASTER_PORT and RANK must be there, too ({error}); "
            "torchrun sets them"
        ) from error


class Devices(SpreadEngine):
    """Trains with `DistributedDataParallel`, which averages gradients while they are computed."""

    how = "DistributedDataParallel"

    def __init__(self, group, meeting, spread):
        import torch
        from torch import distributed

        super().__init__(group)
        if spread.model_shards > 1:
            raise UserError(
                f"--model-shards {spread.model_shards}: on JAX alone; Keras' layers would not see what FSDP2 divides "
                "(docs/scaling.md)"
            )
        if isinstance(spread.devices, int) and spread.devices != (group.num_processes if group else 1):
            count = group.num_processes if group else 1
            raise UserError(f"--devices {spread.devices}: a launcher has started {count} processes; leave it out")
        if group is None:
            return
        self.num_devices = self.num_shares = group.num_processes
        on_gpu = backends.has_accelerator() and torch.cuda.is_available()  # a user may have Keras compute elsewhere
        if on_gpu:
            place = int(os.environ.get("LOCAL_RANK", 0))
            if place >= torch.cuda.device_count():
                raise UserError(f"process {group.process} wants GPU {place}; this host has {torch.cuda.device_count()}")
            torch.cuda.set_device(place)
        if distributed.is_initialized():
            return  # only once per process: a second group at the same port may meet leftovers of the first
        timeout = datetime.timedelta(seconds=spread.peer_timeout)
        try:
            distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{meeting.source} {meeting.host}:{meeting.port}: {first_line(error)}") from error
        atexit.register(distributed.destroy_process_group)

    def settle(self, spread):
        self.synchronised = spread.sync_batch_norm

    def prepare(self, model):
        from torch.nn.parallel import DistributedDataParallel

        if self.num_shares == 1:
            return
        if not keras_inside.has(model, "compute_loss", "loss_tracker"):
            raise UserError("--devices: this version of Keras cannot train on several devices; give --devices 1")
        # Do not broadcast frozen tensors: every process has built the same, and the table of pictures is large.
        if keras_inside.has(DistributedDataParallel, "ignored_parameters"):
            frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
        # `static_graph` allows weights that get no gradient, and blocks that are recomputed in the backward pass.
        parallel = DistributedDataParallel(model, broadcast_buffers=False, static_graph=True)
        model.train_step = functools.partial(_train_step, model, parallel)

    def first_place(self, share):
        return 0 if self.scores else self.group.process * share

    def whole_batch(self, tensor):
        from torch import distributed

        if self.num_shares == 1:
            return tensor
        tensor = tensor.detach().contiguous()
        whole = tensor.new_empty((self.num_shares * tensor.shape[0], *tensor.shape[1:]))
        distributed.all_gather_into_tensor(whole, tensor)
        return whole

    def mean_over_shares(self, tensor):
        return tensor if self.num_shares == 1 else _mean()(tensor, self.num_shares)


def _train_step(model, parallel, data):
    """Does the same as Keras' own training step, with the forward pass through `DistributedDataParallel`."""
    import torch

    inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    outputs = parallel(inputs, training=True)
    model.zero_grad()
    loss = model._compute_loss(x=inputs, y=labels, y_pred=outputs, sample_weight=weights, training=True)
    model._loss_tracker.update_state(loss, sample_weight=labels.shape[0])
    model.optimizer.scale_loss(loss).backward()
    trained = model.trainable_weights
    with torch.no_grad():
        model.optimizer.apply([weight.value.grad for weight in trained], trained)
    return model.compute_metrics(inputs, labels, outputs, sample_weight=weights)


@functools.cache
def _mean():
    import torch
    from torch import distributed

    class Mean(torch.autograd.Function):
        @staticmethod
        def forward(context, tensor, count):
            context.count = count
            tensor = tensor.clone()
            distributed.all_reduce(tensor)
            return tensor / count

        @staticmethod
        def backward(context, gradient):
            gradient = gradient.clone()
            distributed.all_reduce(gradient)
            return gradient / context.count, None

    return Mean.apply
