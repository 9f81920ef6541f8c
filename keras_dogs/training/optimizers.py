"""Builds the optimizer of a recipe: schedule, groups of weights with their own rate, averaged weights."""

import contextlib
import functools
import math
import re

import keras
import numpy as np
from keras import ops

from keras_dogs.backends import devices
from keras_dogs.backends import keras_inside
from keras_dogs.errors import UserError
from keras_dogs.models import families
from keras_dogs.training.recipes import Recipe

# Weights with one of these in their path get no weight decay, as in timm and DeiT: biases, norms, tokens, positions,
# and the scales of DINOv2's branches.
_NOT_DECAYED = ("bias", "gamma", "beta", "token", "position", "lambda")

# `(pattern, offset)` of every family: the pattern finds the block's number in the path of a weight; the offset makes it
# count from 1.
_BLOCKS = tuple(pair for row in families.FAMILIES.values() for pair in row.path_patterns)


@keras.saving.register_keras_serializable(package="keras_dogs")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise from 0 to `peak`, then a cosine to 0.

    Args:
        peak: float.
        updates: int. Number of weight updates in the whole run.
        warmup_fraction: float. Share of the updates during which the rate rises.
        accumulate: int. Steps per update. Keras counts steps, so the schedule divides by this.
    """

    def __init__(self, peak: float, updates: int, warmup_fraction: float = 0.1, accumulate: int = 1):
        super().__init__()
        self.peak, self.updates, self.warmup_fraction, self.accumulate = peak, updates, warmup_fraction, accumulate

    @property
    def numbers(self) -> tuple[float, float, float]:
        """Returns the peak rate, the number of updates before it, and the number after it."""
        rising = round(self.updates * self.warmup_fraction)
        return self.peak, rising, max(self.updates - rising, 1)

    def __call__(self, step, numbers=None):
        """Returns the rate at one step (from 0) or at many, which Keras' own `CosineDecay` does not support.

        Args:
            step: int tensor or array.
            numbers: float tensor of shape `(3,)`, in place of the property.
        """
        peak, rising, falling = self.numbers if numbers is None else (numbers[index] for index in range(3))
        update = ops.cast(step // self.accumulate, "float32")
        done = ops.clip((update - rising) / falling, 0.0, 1.0)
        rate = peak * 0.5 * (1.0 + ops.cos(math.pi * done))
        return ops.where(update < rising, peak * update / ops.maximum(rising, 1.0), rate)

    def get_config(self):
        """See `keras.optimizers.schedules.LearningRateSchedule`."""
        return {
            "peak": self.peak,
            "updates": self.updates,
            "warmup_fraction": self.warmup_fraction,
            "accumulate": self.accumulate,
        }


def build_optimizer(recipe: Recipe, schedule, model: keras.Model, steps_per_epoch: int, dtype_policy="float32"):
    """Returns the optimizer of a recipe for the weights of a model.

    Args:
        recipe: `Recipe`, complete.
        schedule: `WarmupCosine` or float.
        model: `keras.Model`.
        steps_per_epoch: int. Steps, not updates.
        dtype_policy: str. `"mixed_float16"` adds loss scaling.
    """
    takes_no_decay = recipe.optimizer == "sgd" and not recipe.weight_decay  # AdamW does not take `None`
    common = dict(
        weight_decay=None if takes_no_decay else recipe.weight_decay,
        global_clipnorm=recipe.global_clipnorm or None,
        gradient_accumulation_steps=recipe.accumulate if recipe.accumulate > 1 else None,
        use_ema=recipe.ema > 0,
        ema_momentum=recipe.ema or 0.99,  # Keras checks it even where it keeps no averages
    )
    base = keras.optimizers.AdamW if recipe.optimizer == "adamw" else keras.optimizers.SGD
    own = {} if recipe.optimizer == "adamw" else {"momentum": 0.9}
    groups = _groups(recipe, model, steps_per_epoch)
    optimizer = _grouped(base, groups)(schedule, **own, **common)
    # By the path, as the positions of KerasHub's ViT are called `position_embedding/embeddings`.
    optimizer.exclude_from_weight_decay([weight for weight in model.trainable_variables if _is_not_decayed(weight)])
    optimizer.groups = groups
    return keras.optimizers.LossScaleOptimizer(optimizer) if dtype_policy == "mixed_float16" else optimizer


# Names inside Keras' optimizers that `_Groups` overrides or uses.
_NEEDED = (
    *("learning_rate_now", "apply_gradients", "update_step", "weight_decay", "moving_average"),
    *("variable_index", "is_decayed", "steps", "schedule"),
)


def _grouped(base: type, groups: list[tuple[float, int]]) -> type:
    """Returns the optimizer class that Keras uses on this backend, extended by `_Groups`.

    Raises:
        UserError: the groups differ, which this version of Keras does not support.
    """
    optimizer = base()
    keras_class = type(optimizer)
    if keras_inside.has(optimizer, *_NEEDED):
        return type(f"Grouped{base.__name__}", (_Groups, keras_class), {})
    if set(groups) != {(1.0, 0)}:
        raise UserError(
            "--layer-decay and --unfreeze-every: do not work with this version of Keras; install keras 3.15"
        )
    return keras_class


def _is_not_decayed(weight) -> bool:
    last = "/".join(weight.path.split("/")[-2:])
    return any(part in last for part in _NOT_DECAYED)


def _groups(recipe: Recipe, model: keras.Model, steps_per_epoch: int) -> list[tuple[float, int]]:
    """Returns, for each trainable weight, the multiplier of its rate and the update at which it begins to learn."""
    every = recipe.unfreeze_every * steps_per_epoch / recipe.accumulate
    return [(recipe.layer_decay**depth, round(every * depth)) for depth in depths_below_head(model)]


def depths_below_head(model: keras.Model) -> list[int]:
    """Returns each trainable weight's depth: 0 for head and final norm, the greatest for stem and embeddings.

    Depth counts blocks of a ViT or stages of a ResNet; weights before the first of them are one deeper.
    """
    levels = [_block_of(weight.path) for weight in model.trainable_variables]
    blocks = [level for level in levels if level is not None]
    first, top = (levels.index(blocks[0]) if blocks else 0), max(blocks, default=0) + 1
    outside = [top if index < first else 0 for index in range(len(levels))]
    return [other if level is None else top - level for level, other in zip(levels, outside)]


def _block_of(path: str) -> int | None:
    """Returns the number of the block that a weight is in, from 1; `None` outside the blocks."""
    for pattern, offset in _BLOCKS:
        if found := re.search(pattern, path):
            return int(found[1]) + offset
    return None


class _Groups:
    """Adds groups of weights, and a warm-up of the averages, to a Keras optimizer, which is the next base class.

    Attributes:
        groups: list of `(multiplier, first_update)`, one for each weight in the order of `build`.
        schedule_numbers: variable of shape `(3,)`, or `None`. `WarmupCosine.numbers`.
    """

    groups: list[tuple[float, int]]
    schedule_numbers = None

    def build(self, variables):
        """See `keras.optimizers.Optimizer`."""
        if self.built:
            return
        super().build(variables)
        if isinstance(self._learning_rate, WarmupCosine):
            # A variable rather than constants, so that JAX compiles one step for runs of any length and peak rate. Its
            # initializer sets it, because TensorFlow may build an optimizer inside a graph.
            self._schedule, numbers = self._learning_rate, self._learning_rate.numbers
            self.schedule_numbers = self.add_variable(
                (3,), lambda shape, dtype=None: ops.convert_to_tensor(numbers, dtype), name="schedule"
            )

    def _get_current_learning_rate(self):
        if self.schedule_numbers is not None and self._learning_rate is self._schedule:
            return self._schedule(self._iterations, self.schedule_numbers)  # steps, not updates
        return super()._get_current_learning_rate()

    def _rate(self, group, learning_rate):
        multiplier, first = group
        return learning_rate * multiplier * self._is_released(first) if first else learning_rate * multiplier

    def _is_released(self, first: int):
        """Returns 1.0 from the update on at which a frozen block begins to learn, and 0.0 before."""
        return ops.cast(self.iterations >= first, "float32")

    def _from_release(self, first: int):
        """Returns the factor that makes Adam's bias correction count from a block's first update.

        Keras counts the updates of the whole run. For a block that begins later it would assume settled moments, and
        its first updates would be three times too large.
        """
        if not first or not hasattr(self, "beta_1"):
            return 1.0
        done = ops.cast(self.iterations + 1, "float32")
        own = ops.maximum(done - first, 1.0)
        return self._bias_correction(own) / self._bias_correction(done)

    def _bias_correction(self, updates):
        """Returns Adam's bias correction of the rate after some updates (arXiv 1412.6980, section 2)."""
        return ops.sqrt(1.0 - ops.power(self.beta_2, updates)) / (1.0 - ops.power(self.beta_1, updates))

    def _by_group(self, variables) -> dict[tuple[float, int], list[int]]:
        """Maps each group to the indices of its members in `variables`."""
        members = {}
        for index, variable in enumerate(variables):
            members.setdefault(self.groups[self._get_variable_index(variable)], []).append(index)
        return members

    def _backend_apply_gradients(self, grads, trainable_variables):
        # On TensorFlow, Keras sums gradients only after clipping and accumulating: too late for the global norm.
        grads = list(devices.current().sum_gradients(grads))
        # A frozen block has no part in the global norm, and builds up no moments.
        for (_, first), members in self._by_group(trainable_variables).items():
            for index in members if first else ():
                grads[index] = grads[index] * ops.cast(self._is_released(first), grads[index].dtype)
        super()._backend_apply_gradients(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # `_backend_apply_gradients` has summed them

    def _backend_increment_gradient_accumulators(self, grads, acc_grads):
        self._keras_method("_backend_increment_gradient_accumulators")(grads, acc_grads)

    def _keras_method(self, name: str):
        """Returns the method of Keras' optimizer; with several TensorFlow devices, that of Keras' base optimizer.

        Keras' TensorFlow method leaves the replica context, which is not allowed inside a condition: accumulation uses
        one.
        """
        base = keras_inside.find("base_optimizer") if devices.current().updates_copies else None
        if base is not None:
            return functools.partial(getattr(base, name), self)
        return getattr(super(), name)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        update = self._keras_method("_backend_update_step")
        for group, members in self._by_group(trainable_variables).items():
            update(
                [grads[index] for index in members],
                [trainable_variables[index] for index in members],
                self._rate(group, learning_rate) * self._from_release(group[1]),
            )

    def _apply_weight_decay(self, variables):
        if not self.weight_decay:
            return
        for group, members in self._by_group(variables).items():
            factor = 1 - self.weight_decay * self._rate(group, self.learning_rate)
            for variable in (variables[index] for index in members):
                if self._use_weight_decay(variable):
                    self.assign(variable, variable * ops.cast(factor, variable.dtype))

    def _update_model_variables_moving_average(self, trainable_variables):
        """Updates the averages once per update (Keras: once per step); they start as the weights of the first update.

        Momentum is at most n / (n + 9) after n updates, as in `tf.train.ExponentialMovingAverage`; otherwise the
        averages of a short run would stay near its start.
        """
        steps = self.gradient_accumulation_steps or 1
        updates = ops.cast((self._iterations + 1) // steps - 1, "float32")
        momentum = ops.minimum(self.ema_momentum, updates / (updates + 9.0))
        momentum = ops.where((self._iterations + 1) % steps == 0, momentum, 1.0)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average):
            if average is not None:
                average.assign(momentum * average + (1 - momentum) * variable)

    def finalize_variable_values(self, var_list):
        """Does nothing. Keras would replace the weights by their averages after each `fit`; see `averaged`."""


def _without_scaling(optimizer):
    """Returns the optimizer within one that scales the loss, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def state_variables(optimizer) -> list:
    """Returns the variables of an optimizer, except the one that holds the numbers of its schedule."""
    numbers = getattr(_without_scaling(optimizer), "schedule_numbers", None)
    return [variable for variable in optimizer.variables if variable is not numbers]


@contextlib.contextmanager
def averaged(model: keras.Model):
    """Gives the model its averaged weights for the block, if the optimizer keeps averages."""
    optimizer = _without_scaling(model.optimizer)
    if not (optimizer.use_ema and keras_inside.has(optimizer, "averages", "averaged_weights")):
        yield
        return
    weights = optimizer._trainable_variables
    means = optimizer._model_variables_moving_average
    # Copies of both: on JAX, `predict` donates the buffers of the weights, and would donate those of the averages.
    read = devices.current().read
    kept, means = ([np.array(read(each)) for each in several] for several in (weights, means))
    try:
        for weight, mean in zip(weights, means):
            weight.assign(mean)
        yield
    finally:
        for weight, value in zip(weights, kept):
            weight.assign(value)
