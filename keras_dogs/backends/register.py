"""The one way to replace what a layer of Keras computes: from outside, in an order, and with an undo.

A replacement is an attribute of one layer that hides the method of its class, such as `layer.call`. The register keeps,
on the layer itself, what was replaced by whom. `bare` leaves out every replacement that stock Keras could do without.
"""

import contextlib
import functools
import os
from collections.abc import Callable
from collections.abc import Iterator
from typing import NamedTuple

from keras_dogs.backends import keras_inside

# What a replacement is for; a feature is what the user asked for, and no stock Keras is without it.
SPEED, EXACTNESS, FEATURE = "speed", "exactness", "feature"
ANY = object()  # any value of an option
_KEPT = "_keras_dogs_replaced"
_MISSING = object()
# Options of every layer that change nothing in what `call` computes.
_COMMON = ("name", "trainable", "dtype", "activity_regularizer")
_ENDS = ("_initializer", "_regularizer", "_constraint")


class Swap(NamedTuple):
    """One row of a backend's table of swaps.

    Attributes:
        name: str. Unique among the rows of all backends together.
        kind: str. `SPEED`, or `EXACTNESS` where the outputs are nearer to the truth.
        attribute: str. The method that is replaced: `"call"`, `"convolution_op"`, ...
        fits: function of a layer. Whether the swap knows this layer and all its options (`knows`).
        make: function of a layer. Gives the function that takes the method's place (`of`).
        reason: str. What Keras or the framework is slow, or inexact, at.
        gain: str. What was measured, and on what.
        needs: tuple of str. Attributes of the layer that Keras does not promise, keys of `keras_inside.NAMES`.
    """

    name: str
    kind: str
    attribute: str
    fits: Callable
    make: Callable
    reason: str
    gain: str
    needs: tuple[str, ...] = ()


_left_out: list[tuple[str, ...]] = []  # of each context; an empty tuple leaves out all


@contextlib.contextmanager
def bare(*names: str) -> Iterator[None]:
    """Provides a context in which models are built of stock Keras: nothing is replaced for speed or for exactness.

    A model that was built before keeps what it has. `KERAS_DOGS_BARE=1` does the same for a whole process.

    Args:
        *names: str. Leave out these replacements alone, as the `swaps` of a record name them.

    Example:
    ```python
    with keras_dogs.bare():
        classifier = keras_dogs.build_vit("vit_nano", num_classes=4)
    ```
    """
    _left_out.append(names)
    try:
        yield
    finally:
        _left_out.remove(names)


def is_bare(name: str = "") -> bool:
    """Returns whether stock Keras is asked for, or stock Keras in place of one replacement."""
    return os.environ.get("KERAS_DOGS_BARE", "0") not in ("", "0") or any(
        not names or name in names for names in _left_out
    )


def knows(layer, layer_class: type, **options) -> bool:
    """Returns whether a layer is of a class, not of a subclass, and has no option that a swap has never heard of.

    An option that a later version of Keras adds means the plain way, as does a value that is not allowed.

    Args:
        layer: `keras.layers.Layer`.
        layer_class: type.
        **options: for each key of `get_config` that matters to the computation, the allowed value, a tuple of allowed
            values, or `ANY`. Initializers, regularizers, constraints and the like always are allowed.
    """
    if type(layer) is not layer_class:
        return False
    try:
        config = layer.get_config()
    except Exception:  # whoever put something into it that Keras cannot name
        return False
    for key, value in config.items():
        if key in _COMMON or key.endswith(_ENDS):
            continue
        allowed = options.get(key, ())
        if allowed is not ANY and value != allowed and not (isinstance(allowed, tuple) and value in allowed):
            return False
    return True


def of(function: Callable, *fixed) -> Callable:
    """Returns a `Swap.make` for a function of the layer, of what is fixed, and of the method's own arguments."""
    return lambda layer: functools.partial(function, layer, *fixed)


def replace(owner, attribute: str, function: Callable, name: str, kind: str) -> None:
    """Hides a method of a layer or a model behind a function; a second time by the same name changes nothing.

    Args:
        owner: `keras.layers.Layer` or `keras.Model`.
        attribute: str. The method.
        function: function of the method's arguments, without the owner.
        name: str. What it is called in the record of a run.
        kind: str. `SPEED`, `EXACTNESS` or `FEATURE`.
    """
    kept = vars(owner).setdefault(_KEPT, [])
    if name not in names_of(owner):
        kept.append((attribute, name, kind, vars(owner).get(attribute, _MISSING)))
        setattr(owner, attribute, function)


def apply(layer, swaps: tuple[Swap, ...]) -> None:
    """Puts into a layer, for each of its methods, the first row of a table that fits, unless stock Keras is asked for.

    A method that somebody else has replaced stays as it is.
    """
    for swap in swaps:
        if (
            not is_bare(swap.name)
            and swap.attribute not in vars(layer)
            and swap.fits(layer)
            and keras_inside.has(layer, *swap.needs)
        ):
            replace(layer, swap.attribute, swap.make(layer), swap.name, swap.kind)


def undo(owner) -> None:
    """Gives a layer or a model the methods back that were replaced for speed or exactness, the last one first."""
    kept = vars(owner).get(_KEPT, [])
    while kept and kept[-1][2] != FEATURE:
        attribute, _, _, before = kept.pop()
        if before is _MISSING:
            delattr(owner, attribute)
        else:
            setattr(owner, attribute, before)


def names_of(owner) -> list[str]:
    """Returns the names of what was replaced in a layer or a model, in order."""
    return [name for _, name, _, _ in vars(owner).get(_KEPT, [])]


def keeps_its_call(layer) -> bool:
    """Returns whether a layer computes what its class does, by its own `call` or by one for speed or exactness."""
    if "call" not in vars(layer):
        return True
    of_call = [(kind, before) for attribute, _, kind, before in vars(layer).get(_KEPT, []) if attribute == "call"]
    return bool(of_call) and of_call[0][1] is _MISSING and all(kind != FEATURE for kind, _ in of_call)
