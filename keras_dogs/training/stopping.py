"""Ctrl-C, SIGTERM and SIGHUP while something runs that can stop at a good place and go on later."""

import contextlib
import signal
import sys
import threading
import time

from keras_dogs.system import signals


class StopRequest:
    """Within a `with` block, the first signal is only noted; a second one stops at once, as without the block.

    A signal that came before, and whose exception some library has swallowed, counts as the first.

    Attributes:
        status: int. The exit status of the signal that came, 130 of Ctrl-C, 143 of SIGTERM, 129 of SIGHUP; 0 while
            none did.
    """

    # A terminal and a launcher, or a scheduler, may both pass one request on; a person takes longer to ask again.
    SECONDS_OF_ONE_REQUEST = 0.5

    def __init__(self):
        self.status = 0
        self._before, self._noted = {}, 0.0

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            heeded = [number for number in signals.STOPS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heeded}
            self.status = signals.noted()
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if not self.status:
            self.status, self._noted = 128 + number, time.monotonic()
            with contextlib.suppress(OSError):  # of a terminal that was closed
                print("\nstopping after this step; once more to stop at once", file=sys.stderr, flush=True)
        elif time.monotonic() - self._noted > self.SECONDS_OF_ONE_REQUEST:
            self.__exit__()
            signal.raise_signal(number)
