"""A switch of one thread: another thread may train or predict meanwhile, and TensorFlow has one for each device."""

import contextlib
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
