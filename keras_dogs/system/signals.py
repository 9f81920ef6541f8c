"""Makes Ctrl-C, SIGTERM and SIGHUP raise exceptions, and sends a signal again whose exception Python discarded.

A handler may raise where Python discards exceptions: in a callback of the garbage collector, in `__del__`. Every signal
that these handlers get is recorded for `noted`.
"""

import os
import signal
import sys
import threading

STOPS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)  # Windows has no SIGHUP; SIGBREAK is what it sends in place of SIGTERM
_SECONDS_UNTIL_AGAIN = 0.05
_noted: list[int] = []


class Stopped(SystemExit):
    """Raised for SIGTERM and SIGHUP (Ctrl-C raises `KeyboardInterrupt`); `code` is 128 plus the signal's number."""


def noted() -> int:
    """Returns the exit status for the first signal since `raise_on_signals`; 0 while none has come."""
    return 128 + _noted[0] if _noted else 0


def raise_on_signals() -> None:
    """Makes Ctrl-C, SIGTERM and SIGHUP raise `KeyboardInterrupt` or `Stopped`; for commands, not for a library.

    A signal that is ignored stays ignored, as `nohup` wants it.
    """
    _noted.clear()
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)
    if not hasattr(sys.unraisablehook, "sends_signals_again"):
        sys.unraisablehook = _send_again(sys.unraisablehook)


def ignore() -> None:
    """Ignores further signals: the process is about to end with the status of the first."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def _raise(number, frame):
    _noted.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped(128 + number)


def _send_again(before):
    """Returns a hook for swallowed exceptions; where one came from a signal, it sends that signal again."""

    def hook(unraisable):
        if _noted and isinstance(unraisable.exc_value, (KeyboardInterrupt, Stopped)):
            number = _noted[-1]
            timer = threading.Timer(_SECONDS_UNTIL_AGAIN, lambda: os.kill(os.getpid(), number))
            timer.daemon = True
            timer.start()
        else:
            before(unraisable)

    hook.sends_signals_again = True
    return hook
