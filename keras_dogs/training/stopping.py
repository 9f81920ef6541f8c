"""Lets a training stop at a good place on Ctrl-C, SIGTERM or SIGHUP, so that it can go on later."""

import contextlib
import signal
import sys
import threading
import time

from keras_dogs.system import signals


class StopRequest:
    """Within a `with` block, the first signal only sets `status`; a second one stops at once, as without the block.

    The block itself must look at `status`; where it ends without doing so, the signal is raised then. A repetition
    within half a second counts as the same signal. A signal that came before the block, and whose exception some
    library swallowed, counts as the first.

    Attributes:
        status: int. The exit status for the first signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP; 0 while none
            has come.
    """

    # A terminal and a launcher or scheduler may both pass on the same request; a person takes longer to repeat it.
    SECONDS_OF_ONE_REQUEST = 0.5

    def __init__(self):
        self.status = 0
        self._before, self._noted = {}, 0.0

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python sets handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in signals.STOPS if _is_heeded(number)}
            self.status = signals.noted()
            self._noted = time.monotonic() if self.status else 0.0  # it may be sent again
        return self

    def __exit__(self, kind, *error):
        self._restore()
        if self.status and kind is None:  # it came too late for the block to stop: nothing is lost
            signal.raise_signal(self.status - 128)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if not self.status:
            self.status, self._noted = 128 + number, time.monotonic()
            with contextlib.suppress(OSError):  # the terminal may be closed
                print("\nstopping after this step; signal again to stop at once", file=sys.stderr, flush=True)
        elif time.monotonic() - self._noted > self.SECONDS_OF_ONE_REQUEST:
            self._restore()
            signal.raise_signal(number)


def _is_heeded(number: int) -> bool:
    """Returns whether Python handles a signal; one that is ignored, or handled by C alone, stays so."""
    return signal.getsignal(number) not in (signal.SIG_IGN, None)
