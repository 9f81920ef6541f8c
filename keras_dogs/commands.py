"""What every command does around its one function: parse flags, keep tracebacks from users, end with a status."""

import contextlib
import os
import signal
import sys
import time
import traceback
import warnings

from keras_dogs.errors import Interrupted
from keras_dogs.errors import Quiet
from keras_dogs.errors import UserError
from keras_dogs.errors import in_words
from keras_dogs.errors import naming_flags
from keras_dogs.system import at_start  # noqa: F401 - the first that is imported
from keras_dogs.system import flags
from keras_dogs.system import signals
from keras_dogs.system import terminal

STARTED = time.perf_counter()


@naming_flags()
def run(name: str, config_type, procedure) -> int:
    """Parses the flags of `config_type`, runs `procedure` on it, and turns a user's mistake into one line.

    Args:
        name: str. The command, for usage and errors: `"train"`.
        config_type: the dataclass of its flags.
        procedure: function of the config to an exit status, or `None` for 0. It imports what it needs.

    Returns:
        The exit status: 0; 1 for a failure of the machine, or of a part of the work; 2 for a user's mistake; 130, 143
        and 129 for Ctrl-C, SIGTERM and SIGHUP; 141 where the reader of the output has gone.
    """
    terminal.accept_any_text()
    signals.raise_on_signals()
    program = f"keras_dogs.{name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return procedure(flags.parse(f"python -m {program}", config_type)) or 0
    except UserError as error:
        return _say(f"{program}: error: {error}", 2)
    except Interrupted as stop:
        return _say(f"{program}: {stop}", stop.status)
    except Quiet as ended:
        return ended.status
    except (KeyboardInterrupt, signals.Stopped):
        return _say(f"{program}: interrupted", signals.noted() or 128 + signal.SIGINT)
    except BrokenPipeError:
        terminal.forget_output()
        return 141
    except MemoryError as error:
        return _say(f"{program}: error: not enough memory ({error or 'the machine has no more'})", 1)
    except OSError as error:
        return _say(f"{program}: error: {in_words(error)}", 1)
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # of pathlib, before Python 3.13
            raise
        return _say(f"{program}: error: {error}", 1)


def _say(text: str, status: int) -> int:
    with contextlib.suppress(OSError):  # whoever would read it has gone
        print(terminal.one_line(text), file=sys.stderr)
    return status


def leave(main) -> None:
    """Ends the process with the status of `main`.

    If this is one of several processes, and it failed, it ends at once: on exit, its backend would wait for the others,
    which are gone.

    Args:
        main: function of no argument to an exit status.
    """
    try:
        status = main()
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        status = 1
    signals.ignore()
    group = sys.modules.get("keras_dogs.backends.devices.group")
    if status and group and group.Processes.was_joined:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
