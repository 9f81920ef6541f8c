"""What holds in one thread alone: another may train or predict meanwhile, and TensorFlow has one for each device."""

import contextlib
import functools
import threading


class ThreadFlag(threading.local):
    """A switch that is off in every thread until that thread turns it on.

    Attributes:
        is_on: bool. In this thread.
    """

    is_on = False

    @contextlib.contextmanager
    def on(self):
        """Turns it on within the block, in this thread."""
        before, self.is_on = self.is_on, True
        try:
            yield
        finally:
            self.is_on = before


class _Replacement(threading.local):
    """What is called in this thread in place of a function.

    Attributes:
        function: what is called; `None` for the original.
        take_back: function of no argument that leaves the owner as it was.
    """

    function = None

    def __init__(self, take_back):
        self.take_back = take_back


_lock = threading.Lock()
_replaced: dict[tuple, list] = {}  # (owner, name): the replacement, and how many blocks use it


def _install(owner, name: str, function) -> _Replacement:
    original, own = getattr(owner, name), vars(owner).get(name)
    here = _Replacement(lambda: setattr(owner, name, own) if own else delattr(owner, name))

    @functools.wraps(function)  # Keras looks at the names of the arguments
    def call(*args, **kwargs):
        return (here.function or original)(*args, **kwargs)

    setattr(owner, name, call)
    return here


@contextlib.contextmanager
def replaced_here(owner, name: str, function):
    """Replaces a function of a module or a class within the block, in this thread; other threads call the original.

    Args:
        owner: module or class that has the function, its own or inherited.
        name: str.
        function: what is called instead, with the original's arguments.
    """
    key = (owner, name)
    with _lock:
        if key not in _replaced:
            _replaced[key] = [_install(owner, name, function), 0]
        _replaced[key][1] += 1
        here = _replaced[key][0]
    before, here.function = here.function, function
    try:
        yield
    finally:
        here.function = before
        with _lock:
            _replaced[key][1] -= 1
            if not _replaced[key][1]:
                _replaced.pop(key)[0].take_back()
