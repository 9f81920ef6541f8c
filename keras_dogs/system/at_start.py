"""Ends a command without a traceback where Ctrl-C comes while its modules load; `commands` imports this first.

Nothing changes where the package is used as a library.
"""

import signal
import sys
import threading

_spec = getattr(sys.modules.get("__main__"), "__spec__", None)
if (
    _spec
    and _spec.name.startswith("keras_dogs.")
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `signals.raise_on_signals`
