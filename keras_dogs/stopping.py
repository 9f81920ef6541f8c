"""Ctrl-C and SIGTERM while something runs that can stop at a good place and go on later."""

import signal
import sys
import threading


class StopRequest:
    """Within a `with` block, the first signal is only noted; a second one stops at once, as without the block.

    Attributes:
        status: int. The exit status of the signal that came, 130 or 143; 0 while none did.
    """

    def __init__(self):
        self.status = 0
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.status = 128 + number
        print("\nstopping after this step; once more to stop at once", file=sys.stderr, flush=True)
        self.__exit__()
