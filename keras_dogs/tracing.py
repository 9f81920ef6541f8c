"""PyTorch without Keras' Python in each step: a model's forward pass is traced once, and compiled on a GPU.

Keras walks through a model layer by layer, in Python: about 0.2 ms a layer, and each hands the device one operation
after the other. Its layers are functions of their inputs and variables, as JAX needs them, so that the calls of ATen
that they end in can be written down once (`make_fx`), for each shape of the inputs, and then be made without them. On
a GPU that list goes to `torch.compile`, which cannot follow Keras' own code.
"""

import contextlib
import functools
import sys

import keras
import numpy as np
from keras import ops

from keras_dogs import backend
from keras_dogs import devices
from keras_dogs.errors import first_line

# Calls of a kind that go layer by layer first: what is called once or twice is not worth a trace.
_CALLS_BEFORE = 2
_state = {"layer_by_layer": False}


@contextlib.contextmanager
def layer_by_layer():
    """Within it, models run as Keras has them: for those who watch or change a layer."""
    kept = _state["layer_by_layer"]
    _state["layer_by_layer"] = True
    try:
        yield
    finally:
        _state["layer_by_layer"] = kept


def trace(model: keras.Model) -> None:
    """Makes a functional model run from a trace, on PyTorch; elsewhere nothing is to be done.

    What comes out is the same: to the last bit on a CPU, to rounding on a GPU, where it is compiled.
    """
    if backend.name() == "torch":
        model.call = Traced(model, model.call)


def describe(model: keras.Model) -> str | None:
    """How a model's steps ran, in words, or `None` where they went layer by layer."""
    traced = getattr(model, "call", None)
    return traced.in_words if isinstance(traced, Traced) else None


class Traced:
    """A model's `call`, from a graph for each kind of call that comes often enough.

    Attributes:
        in_words: str or `None`. How calls ran last, for the record.
    """

    def __init__(self, model: keras.Model, call):
        self._model, self._call = model, call
        self._graphs: dict = {}  # by the kind of a call: how often it came, or what runs it
        self.in_words: str | None = None

    def __call__(self, inputs, training=None, mask=None, **named):
        if isinstance(inputs, np.ndarray):
            inputs = ops.convert_to_tensor(inputs)
        kind = self._kind(inputs, training) if mask is None and not named else None
        if kind is None:
            return self._call(inputs, training=training, mask=mask, **named)
        found = self._graphs.setdefault(kind, 0)
        if found == _CALLS_BEFORE:
            found = self._graphs[kind] = self._trace(inputs, training)
        if not isinstance(found, int):
            return found(inputs)
        self._graphs[kind] += 1
        with layer_by_layer():
            return self._call(inputs, training=training)

    def _kind(self, inputs, training) -> tuple | None:
        """What a graph is good for; `None` where the model must go layer by layer."""
        import torch

        if _state["layer_by_layer"] or not isinstance(inputs, torch.Tensor) or inputs.is_meta:
            return None
        if devices.current().num_shares > 1 or self._is_opaque:
            return None
        learning = tuple(layer.trainable for layer in self._layers)
        return bool(training), torch.is_grad_enabled(), inputs.shape, inputs.dtype, learning

    @functools.cached_property
    def _layers(self) -> list:
        return self._model._flatten_layers()

    @functools.cached_property
    def _is_opaque(self) -> bool:
        """Whether a layer draws from Keras' generators, which a trace would take for constants, or computes again."""
        return any(layer._seed_generators or hasattr(layer.call, "rematerialises") for layer in self._layers)

    def _trace(self, inputs, training):
        try:
            graph = _Graph(self._model, self._call, inputs, training)
        except Exception as error:  # whatever a layer does that cannot be traced
            print(f"warning: the model runs layer by layer: {first_line(error)}", file=sys.stderr)
            return functools.partial(self._plainly, training=training)
        self.in_words = graph.in_words
        return graph

    def _plainly(self, inputs, training):
        with layer_by_layer():
            return self._call(inputs, training=training)


class _Graph:
    """What a model does with inputs of one shape and type, as calls of ATen."""

    def __init__(self, model: keras.Model, call, inputs, training):
        import torch
        from torch.fx.experimental.proxy_tensor import make_fx

        self._variables = model.variables
        self._changed: list = []

        def run(inputs, *values):
            with layer_by_layer(), keras.StatelessScope(zip(self._variables, values)) as scope:
                before = [scope.get_current_value(variable) for variable in self._variables]
                outputs = call(inputs, training=training)
                after = [scope.get_current_value(variable) for variable in self._variables]
            self._changed = [place for place, value in enumerate(after) if value is not before[place]]
            return outputs, [after[place].detach() for place in self._changed]

        module = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(inputs, *self._values())
        _fold_constants(module)
        self._run, self.in_words = module, "a graph of ATen calls, traced once"
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        if backend.has_accelerator() and not torch.are_deterministic_algorithms_enabled():
            self._run, self.in_words = torch.compile(module, dynamic=False), "traced, and compiled by torch.compile"

    def _values(self) -> list:
        return [variable._value for variable in self._variables]

    def __call__(self, inputs):
        import torch

        values = self._values()
        outputs, updates = self._run(inputs, *values)
        if updates:
            with torch.no_grad():
                torch._foreach_copy_([values[place] for place in self._changed], updates)
        return outputs


def _fold_constants(module) -> None:
    """Computes what depends on no input once and for all."""
    import torch

    def is_mutable(node):
        return node.op == "call_function" and getattr(node.target, "_schema", None) and node.target._schema.is_mutable

    known = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
        elif node.op == "call_function" and all(source in known for source in node.all_input_nodes):
            if any(map(is_mutable, (node, *node.users))):
                continue
            arguments, named = torch.fx.map_arg((node.args, node.kwargs), known.get)
            value = node.target(*arguments, **named)
            if isinstance(value, torch.Tensor):
                known[node] = value
    for number, (node, value) in enumerate(known.items()):
        if node.op == "call_function" and any(user not in known for user in node.users):
            module.register_buffer(f"constant_{number}", value)
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.get_attr(f"constant_{number}"))
    module.graph.eliminate_dead_code()
    module.recompile()
