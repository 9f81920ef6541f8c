"""What every command does around its one function: parse flags, keep tracebacks from users, end with a status."""

import os
import signal
import sys
import time
import traceback
import warnings

import tyro

from keras_dogs.errors import Interrupted
from keras_dogs.errors import Quiet
from keras_dogs.errors import UserError

STARTED = time.perf_counter()


def run(name: str, config_type, procedure) -> int:
    """Parses the flags of `config_type`, runs `procedure` on it, and turns a user's mistake into one line.

    Args:
        name: str. The command, for usage and errors: `"train"`.
        config_type: the dataclass of its flags.
        procedure: function of the config to an exit status, or `None` for 0. It imports what it needs.

    Returns:
        The exit status: 0; 2 for a user's mistake; 130 and 143 for Ctrl-C and SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = tyro.cli(config_type, prog=f"python -m keras_dogs.{name}", description=config_type.__doc__)
            return procedure(config) or 0
    except UserError as error:
        print(f"keras_dogs.{name}: error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"keras_dogs.{name}: {stop}", file=sys.stderr)
        return stop.status
    except Quiet as ended:
        return ended.status
    except KeyboardInterrupt:
        print(f"keras_dogs.{name}: interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141


def leave(main) -> None:
    """Ends the process with the status of `main`.

    One of several that failed ends at once: its engine would wait, at the end of Python, for others that are gone.

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
    group = sys.modules.get("keras_dogs.backends.devices.group")
    if status and group and group.Processes.was_joined:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _terminate(signum, frame):
    raise SystemExit(143)
