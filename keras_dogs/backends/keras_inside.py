"""Lists what is used here of Keras, KerasHub, JAX and PyTorch that they do not promise to their users.

Each such name is a row here, with what it is for and what happens without it. A name is looked up when it is first
needed. If it is gone, one warning names it, and the run goes on the plain way or, where there is none, is refused. All
names were tried with keras 3.15, keras-hub 0.32, jax 0.10, tensorflow 2.21 and torch 2.13.
"""

import functools
import importlib
import sys
from typing import NamedTuple


class Name(NamedTuple):
    """A row of the table.

    Attributes:
        where: str. The module that has the name, or the class whose instances have it.
        attribute: str.
        purpose: str. What it is for; for the reader of this table.
        without: str. What happens where it is gone; the end of the warning.
    """

    where: str
    attribute: str
    purpose: str
    without: str


_SLOWER = "layers run as Keras wrote them, slower or in more memory"
_UNTRACED = "PyTorch runs layer by layer, which is slower"
_ONE_DEVICE = "training on several devices is refused"
_STOCK = "Keras' own optimizer runs: averages have no warm-up, and groups of weights are refused"

NAMES = {
    # Layers and models
    "layers": Name(
        "keras.Layer", "_flatten_layers", "to walk over all layers of a model", "layers are sought in attributes"
    ),
    "blocks": Name("keras.Layer", "_layers", "to find the blocks of a ViT in order", "layers are sought in attributes"),
    "graph": Name("keras.Model", "_run_through_graph", "to let go of what no layer needs", _SLOWER),
    "nodes": Name("keras.Model", "_nodes_by_depth", "to know in which order layers run", _SLOWER),
    "outputs": Name("keras.Model", "_outputs_struct", "to put outputs together as Keras does", _SLOWER),
    "attention_scale": Name("keras.layers.MultiHeadAttention", "_inverse_sqrt_key_dim", "attention", _SLOWER),
    "attention_bias": Name("keras.layers.MultiHeadAttention", "_use_bias", "one product for three", _SLOWER),
    "moments": Name("keras.layers.BatchNormalization", "_moments", "statistics in parts", _SLOWER),
    "norm_axes": Name("keras.layers.BatchNormalization", "_reduction_axes", "statistics in parts", _SLOWER),
    # Building
    "initializers": Name(
        "keras.src.initializers.random_initializers",
        "random",
        "to draw random weights that are the same on every backend",
        "random weights differ from backend to backend",
    ),
    "vit_encoder": Name(
        "keras_hub.src.models.vit.vit_layers",
        "ViTEncoder",
        "to tell Keras that a ViT's tokens keep their shape; Keras would trace all blocks to find that out",
        "a ViT takes longer to build",
    ),
    "load_json": Name(
        "keras_hub.src.utils.preset_utils",
        "load_json",
        "to read the config of a preset without building it",
        "the preset is built twice",
    ),
    "call_context": Name(
        "keras.src.backend.common",
        "global_state",
        "to compute blocks again as they were computed (`--remat`)",
        "`--remat` has no effect: blocks keep their activations",
    ),
    # Training
    "base_optimizer": Name(
        "keras.src.optimizers.base_optimizer", "BaseOptimizer", "to update each device's copy", _ONE_DEVICE
    ),
    "learning_rate_now": Name("keras.optimizers.Optimizer", "_get_current_learning_rate", "schedules", _STOCK),
    "apply_gradients": Name("keras.optimizers.Optimizer", "_backend_apply_gradients", "held blocks", _STOCK),
    "update_step": Name("keras.optimizers.Optimizer", "_backend_update_step", "rates of groups", _STOCK),
    "weight_decay": Name("keras.optimizers.Optimizer", "_apply_weight_decay", "decay of groups", _STOCK),
    "moving_average": Name("keras.optimizers.Optimizer", "_update_model_variables_moving_average", "averages", _STOCK),
    "variable_index": Name("keras.optimizers.Optimizer", "_get_variable_index", "rates of groups", _STOCK),
    "steps": Name("keras.optimizers.Optimizer", "_iterations", "to count steps, not updates", _STOCK),
    "schedule": Name("keras.optimizers.Optimizer", "_learning_rate", "schedules", _STOCK),
    "averages": Name(
        "keras.optimizers.Optimizer", "_model_variables_moving_average", "averages", "the last weights are scored"
    ),
    "averaged_weights": Name(
        "keras.optimizers.Optimizer", "_trainable_variables", "averages", "the last weights are scored"
    ),
    "is_decayed": Name("keras.optimizers.Optimizer", "_use_weight_decay", "decay of groups", _STOCK),
    # PyTorch
    "torch_device": Name(
        "keras.src.backend.torch.core", "get_device", "to know where Keras computes", "CUDA where there is one"
    ),
    "in_stateless_scope": Name(
        "keras.src.backend.common.stateless_scope", "in_stateless_scope", "not to trace a trace", _UNTRACED
    ),
    "make_fx": Name("torch.fx.experimental.proxy_tensor", "make_fx", "to trace a step", _UNTRACED),
    "foreach_copy": Name("torch", "_foreach_copy_", "to give variables their new values in one call", _UNTRACED),
    "compute_loss": Name("keras.Model", "_compute_loss", "to trace a training step", _UNTRACED),
    "loss_tracker": Name("keras.Model", "_loss_tracker", "to trace a training step", _UNTRACED),
    "compiled_loss": Name("keras.Model", "_compile_loss", "to know when a trace is out of date", _UNTRACED),
    "compiled_metrics": Name("keras.Model", "_compile_metrics", "to know when a trace is out of date", _UNTRACED),
    "seed_generators": Name("keras.Layer", "_seed_generators", "not to trace what draws", _UNTRACED),
    "own_trainable": Name("keras.Layer", "_trainable_variables", "to notice quantisation and LoRA", _UNTRACED),
    "own_others": Name("keras.Layer", "_non_trainable_variables", "to notice quantisation and LoRA", _UNTRACED),
    "variable_value": Name("keras.Variable", "_value", "to read and write variables without a copy", _UNTRACED),
    "onednn": Name("torch.ops.mkldnn", "_linear_pointwise", "products by oneDNN", "PyTorch chooses the library"),
    # Several devices
    "ignored_parameters": Name(
        "torch.nn.parallel.DistributedDataParallel",
        "_set_params_and_buffers_to_ignore_for_model",
        "not to send what does not learn",
        "frozen weights and the table of pictures are sent to every process",
    ),
    "variable_layout": Name("keras.Variable", "_layout", "to notice shards that divide nothing", "shards are refused"),
    "clusters": Name("jax._src", "clusters", "to find processes of Slurm and Open MPI", "only flags name processes"),
    "distribute_tensor": Name(
        "keras.src.backend.jax.distribution_lib", "distribute_tensor", "arrays of several hosts", _ONE_DEVICE
    ),
    "reduce_per_replica": Name(
        "keras.src.backend.tensorflow.trainer", "reduce_per_replica", "metrics of several devices", _ONE_DEVICE
    ),
}

_removed: set[str] = set()  # names that tests take away, as a later version might
_warned: set[str] = set()


def find(key: str):
    """Looks a row of the table up in its module; returns `None`, with a warning, where the name is gone.

    Args:
        key: str. A key of `NAMES`.
    """
    name = NAMES[key]
    found = None if key in _removed else _look_up(name.where, name.attribute)
    return _warn(key) if found is None else found


def module_of(key: str):
    """Returns the module that has a name of the table, so that it can be replaced there; `None` where it is gone."""
    return None if find(key) is None else _import(NAMES[key].where)


def has(owner, *keys: str) -> bool:
    """Returns whether an instance or a class has all of the attributes; a warning names the first that is gone."""
    for key in keys:
        if key in _removed or not hasattr(owner, NAMES[key].attribute):
            _warn(key)
            return False
    return True


def layers_of(model) -> list:
    """Returns a model or layer and all layers inside it, each once."""
    if has(model, "layers"):
        return model._flatten_layers()
    found, waiting = [], [model]
    while waiting:
        layer = waiting.pop(0)
        if not any(layer is known for known in found):
            found.append(layer)
            waiting += _parts_of(layer)
    return found


def parts_of(layer) -> list:
    """Returns the layers that a layer itself holds, in the order in which they were added."""
    return layer._layers if has(layer, "blocks") else _parts_of(layer)


def _parts_of(layer) -> list:
    import keras

    values = []
    for each in vars(layer).values():
        values += each if isinstance(each, (list, tuple)) else [each]
    return [each for each in values if isinstance(each, keras.Layer)]


@functools.cache
def _look_up(where: str, attribute: str):
    try:
        return getattr(_import(where), attribute)
    except (ImportError, AttributeError):
        return None


def _import(where: str):
    """Imports a module; what is no module is looked up as an attribute of its parent (`torch.ops.mkldnn`)."""
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError:
        parent, _, last = where.rpartition(".")
        if not parent:
            raise
        return getattr(_import(parent), last)


def _warn(key: str) -> None:
    if key not in _warned:
        _warned.add(key)
        name = NAMES[key]
        print(f"warning: {name.where} has no {name.attribute} any more: {name.without}", file=sys.stderr)
