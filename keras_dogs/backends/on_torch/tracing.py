"""PyTorch without Keras' Python in each step: a model's forward pass is traced once, and compiled on a GPU.

Keras walks through a model layer by layer, in Python: about 0.2 ms a layer, and each hands the device one operation
after the other. Its layers are functions of their inputs and variables, as JAX needs them, so that the calls of ATen
that they end in can be written down once (`make_fx`), for each shape of the inputs, and then be made without them. On
a GPU that list goes to `torch.compile`, which cannot follow Keras' own code.
"""

import collections
import contextlib
import functools
import sys
import threading
import time

import keras
import numpy as np
from keras import ops

from keras_dogs import backends
from keras_dogs.backends import devices
from keras_dogs.backends import keras_inside
from keras_dogs.backends import register
from keras_dogs.backends.on_torch import graph_passes
from keras_dogs.backends.on_torch.operators import is_compiling_or_exporting
from keras_dogs.errors import first_line
from keras_dogs.system.thread_flag import ThreadFlag

# What calls of a kind take, layer by layer, before a trace, which takes some seconds itself, is worth while.
SECONDS_BEFORE = 5.0
_CALLS_BEFORE = 2  # at least: the first ones make things
_TRACED = "traced once to calls of ATen"
_layer_by_layer, _at_once = ThreadFlag(), ThreadFlag()
_tracing = threading.Lock()  # `make_fx` changes PyTorch for all threads


def layer_by_layer():
    """Returns a context in which models run as Keras has them: for those who watch or change a layer."""
    return _layer_by_layer.on()


def settle(call) -> None:
    """Makes a call until it is traced, whatever it takes: for those who know that many of its kind will come."""
    with _at_once.on():
        for _ in range(_CALLS_BEFORE + 1):
            call()


def trace(model: keras.Model) -> None:
    """Makes a functional model run, and train, from a trace.

    What comes out is the same: to the last bit on a CPU, to rounding on a GPU, where it is compiled.
    """
    ways = (("call", "torch_traced_call", _Call), ("train_step", "torch_traced_step", _Step))
    ways = [way for way in ways if not register.is_bare(way[1])]
    if ways and _can_trace(model):
        traced = [Traced(model, work(model, getattr(model, method))) for method, _, work in ways]
        for (method, name, _), way in zip(ways, traced):
            register.replace(model, method, way, name, register.SPEED)


def _can_trace(model: keras.Model) -> bool:
    """Returns whether everything is there that a trace needs and that nobody promises."""
    of_modules = ("in_stateless_scope", "make_fx", "foreach_copy")
    of_models = ("compute_loss", "loss_tracker", "compiled_loss", "compiled_metrics")
    of_layers = ("seed_generators", "own_trainable", "own_others")
    return (
        all(keras_inside.find(key) is not None for key in of_modules)
        and keras_inside.has(model, *of_models, *of_layers)
        and all(keras_inside.has(variable, "variable_value") for variable in model.variables[:1])
    )


def describe(model: keras.Model) -> str | None:
    """Describes how a model's steps ran; `None` where they went layer by layer."""
    parts = (getattr(model, name, None) for name in ("train_step", "call"))
    return next((part.in_words for part in parts if isinstance(part, Traced) and part.in_words), None)


def count(model: keras.Model) -> int:
    """Counts the traces of a model: one more means that a step has included making it."""
    parts = (getattr(model, name, None) for name in ("train_step", "call"))
    return sum(part.num_made for part in parts if isinstance(part, Traced))


class Traced:
    """What a model does, from a graph for each kind of call that comes often enough."""

    def __init__(self, model: keras.Model, work):
        self._model, self._work = model, work
        self._runners: dict = {}  # by the kind of a call; `None` where it cannot be traced
        self.num_made = 0  # tries included that did not come to a trace
        self._spent = collections.defaultdict(list)  # seconds of each call of a kind that went layer by layer
        self._last = None

    @property
    def in_words(self) -> str | None:
        """How calls run, for the record; `None` where they go layer by layer."""
        return self._last and self._last.in_words

    def __call__(self, *args, **kwargs):
        """Takes the arguments of the method that it replaces, and returns what that method returns."""
        tensors, kind = self._work.sort(*args, **kwargs)
        if kind is None or not self._may_trace(tensors):
            return self._work.untraced(*args, **kwargs)
        kind += tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        kind += tuple(map(_variables_of, self._layers))
        spent = self._spent[kind]
        seconds = 0.0 if _at_once.is_on else SECONDS_BEFORE
        if kind not in self._runners and len(spent) >= _CALLS_BEFORE and sum(spent) >= seconds:
            if _tracing.acquire(blocking=False):  # or layer by layer, while another thread traces
                try:
                    self._make_runner(tensors, kind)
                finally:
                    _tracing.release()
        if runner := self._runners.get(kind):
            return runner(*tensors)
        began = time.perf_counter()
        with layer_by_layer():
            outputs = self._work.untraced(*args, **kwargs)
        if kind not in self._runners:
            spent.append(time.perf_counter() - began)
        return outputs

    def _may_trace(self, tensors) -> bool:
        import torch

        if _layer_by_layer.is_on or keras_inside.find("in_stateless_scope")() or is_compiling_or_exporting():
            return False
        if devices.current().num_shares > 1 or self._is_opaque:
            return False
        return all(isinstance(tensor, torch.Tensor) and not tensor.is_meta for tensor in tensors)

    @functools.cached_property
    def _layers(self) -> list:
        return keras_inside.layers_of(self._model)

    @functools.cached_property
    def _is_opaque(self) -> bool:
        """Whether a layer draws from Keras' generators, which a trace would take for constants, or computes again."""
        return any(layer._seed_generators or "rematerialised" in register.names_of(layer) for layer in self._layers)

    def _make_runner(self, tensors, kind) -> None:
        if kind in self._runners:  # another thread has made it meanwhile
            return
        self._runners = {each: made for each, made in self._runners.items() if not self._work.is_outdated(made)}
        self._runners[kind] = self._trace(tensors, kind)
        self.num_made += 1

    def _trace(self, tensors, kind):
        try:
            runner = self._work.trace(tensors, kind)
        except Exception as error:  # whatever a layer does that cannot be traced
            print(f"warning: the model runs layer by layer: {first_line(error)}", file=sys.stderr)
            return None
        self._last = runner
        return runner


class _Call:
    """A model's `call`."""

    def __init__(self, model: keras.Model, call):
        self.model, self.untraced = model, call

    def sort(self, inputs, training=None, mask=None, **named):
        """Returns the tensors of a call, and what else makes its kind; `None` where no trace could stand for it."""
        import torch

        tensors = [_as_tensor(inputs)]
        return tensors, None if mask is not None or named else (bool(training), torch.is_grad_enabled())

    def is_outdated(self, runner) -> bool:
        """Returns whether no call will come to it any more."""
        return False

    def trace(self, tensors, kind):
        return _Graph(
            self.model.variables,
            functools.partial(self.untraced, training=kind[0]),
            tensors,
            backends.is_exact(self.model),
        )


class _Step:
    """A model's `train_step`: forward pass, loss and metrics as one graph, the update of the weights as another."""

    def __init__(self, model: keras.Model, train_step):
        self.model, self.untraced = model, train_step

    def sort(self, data):
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        optimizer = self.model.optimizer
        can_trace = weights is None and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        compiled = (optimizer, self.model._compile_loss, self.model._compile_metrics)
        return [_as_tensor(inputs), _as_tensor(labels)], tuple(map(id, compiled)) if can_trace else None

    def is_outdated(self, runner) -> bool:
        """Returns whether the model was compiled again since, so that this runner can be dropped."""
        return runner is not None and runner.optimizer is not self.model.optimizer

    def trace(self, tensors, kind):
        return _TracedStep(self.model, tensors)


class _TracedStep:
    """Keras' own step (`TorchTrainer.train_step`) of two graphs."""

    def __init__(self, model: keras.Model, tensors):
        import torch

        self.optimizer, self._trained = model.optimizer, model.trainable_weights
        if not self._trained:
            raise ValueError("there are no weights to train")  # Keras' own step says so, and goes on
        self._kept = (model._compile_loss, model._compile_metrics)  # or others could have their `id`

        def losses(inputs, labels):
            outputs = model(inputs, training=True)
            loss = model._compute_loss(x=inputs, y=labels, y_pred=outputs, training=True)
            model._loss_tracker.update_state(loss.detach(), sample_weight=inputs.shape[0])
            logs = model.compute_metrics(inputs, labels, outputs)
            return loss, {name: value.detach() for name, value in logs.items()}

        self._losses = _Graph([*model.variables, *model.metrics_variables], losses, tensors, backends.is_exact(model))
        self._update = None
        variables = [*self.optimizer.variables, *self._trained]
        gradients = [torch.zeros_like(weight._value, requires_grad=False) for weight in self._trained]
        with torch.no_grad(), contextlib.suppress(Exception):  # those that look at the number of the step
            self._update = _Graph(variables, self._apply, gradients, compiled=False)
            if backends.has_accelerator():
                graph_passes.keep_rate_on_device(self._update.module)

    @property
    def in_words(self) -> str:
        return self._losses.in_words

    def _apply(self, *gradients):
        self.optimizer.apply(list(gradients), self._trained)

    def __call__(self, inputs, labels):
        import torch

        def differentiate(outputs):
            loss, logs = outputs
            weights = [weight._value for weight in self._trained]
            for weight in weights:
                weight.grad = None
            self.optimizer.scale_loss(loss).backward()
            return [weight.grad for weight in weights], logs

        gradients, logs = self._losses(inputs, labels, then=differentiate)
        with torch.no_grad():
            whole = self._update and all(gradient is not None for gradient in gradients)
            (self._update if whole else self._apply)(*gradients)
        return logs


def _variables_of(layer) -> tuple[bool, int, int]:
    """Returns whether a layer trains, and how many variables it has of either kind: `quantize` and LoRA change that."""
    return layer.trainable, len(layer._trainable_variables), len(layer._non_trainable_variables)


def _as_tensor(value):
    return ops.convert_to_tensor(value) if isinstance(value, np.ndarray) else value


class _Graph:
    """A function of tensors and Keras' variables as calls of ATen, for tensors of one shape and type each."""

    def __init__(self, variables: list, function, tensors: list, exact: bool = True, compiled: bool = True):
        import torch

        self._exact = exact
        self._variables = list({id(variable): variable for variable in variables}.values())
        self._changed: list = []

        def run(*arguments):
            tensors, values = arguments[: -len(self._variables)], arguments[-len(self._variables) :]
            with layer_by_layer(), keras.StatelessScope(zip(self._variables, values)) as scope:
                before = [scope.get_current_value(variable) for variable in self._variables]
                outputs = function(*tensors)
                after = [scope.get_current_value(variable) for variable in self._variables]
            self._changed = [place for place, value in enumerate(after) if value is not before[place]]
            return outputs, [after[place].detach() for place in self._changed]

        # On tensors without numbers, so that whatever would become a constant of the graph is an error.
        module = keras_inside.find("make_fx")(run, tracing_mode="fake", _allow_non_fake_inputs=True)(
            *tensors, *self._values()
        )
        graph_passes.fold_constants(module)
        self.module = self._run = module
        self.in_words, self._ran = _TRACED, False
        if compiled and backends.has_accelerator() and not torch.are_deterministic_algorithms_enabled():
            graph_passes.put_channels_second(module)
            torch.backends.cudnn.benchmark = True
            self._run, self.in_words = torch.compile(module, dynamic=False), "traced, and compiled by torch.compile"

    def _values(self) -> list:
        return [variable._value for variable in self._variables]

    def __call__(self, *tensors, then=lambda outputs: outputs):
        """Returns the function's outputs, or what `then` makes of them before the variables get their new values."""
        try:
            return self._once(tensors, then)
        except Exception as error:
            if self._run is self.module or self._ran or backends.is_out_of_memory(error):
                raise
            print(f"warning: torch.compile fails, so that it is left out: {first_line(error)}", file=sys.stderr)
            self._run, self.in_words = self.module, _TRACED
            return self._once(tensors, then)

    def _once(self, tensors, then):
        import torch

        values = self._values()
        with backends.products(self._exact):  # those that the backend's own kernels do
            outputs, updates = self._run(*tensors, *values)
            outputs = then(outputs)
        self._ran = True
        if updates:
            with torch.no_grad():
                keras_inside.find("foreach_copy")([values[place] for place in self._changed], updates)
        return outputs
