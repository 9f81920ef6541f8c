"""Joins the devices of a run, in one process or several, and gives access to them through `current()`.

`group` is how processes talk to each other, the same on every backend; each backend's own engine is in
`on_<backend>/devices.py`. Without `join`, `current()` is an engine of one device.
"""

import contextlib

from keras_dogs import backends
from keras_dogs.backends.devices.engine import DeviceOptions
from keras_dogs.backends.devices.engine import Engine
from keras_dogs.backends.devices.group import Processes
from keras_dogs.backends.devices.group import Rendezvous
from keras_dogs.errors import Interrupted
from keras_dogs.errors import Quiet
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line

# How long a process that fails unexpectedly waits to hear whether another process failed first.
_SECONDS_FOR_THE_REASON = 3.0

_current: list[Engine] = [Engine()]


def current() -> Engine:
    """Returns the engine of this process."""
    return _current[-1]


@contextlib.contextmanager
def join(spread: DeviceOptions, given: dict, backend_name: str, versions: dict):
    """Connects to the other processes, if any, and takes the devices; yields the `Engine`.

    A failure inside the block stops the other processes too, and a failure of theirs is raised here.

    Args:
        spread: `DeviceOptions`.
        given: dict of str to anything. The flags that must be the same in every process, with their values.
        backend_name: str.
        versions: dict of str to str. The versions that must be the same in every process.

    Raises:
        UserError: a process is missing, has failed, or has other flags or versions; or there are too few devices.
    """
    module = backends.module_of("devices", backend_name)
    meeting = module.find_rendezvous(spread)
    if meeting is None and spread.devices is None and spread.model_shards == 1:
        yield current()
        return
    group = meeting and Processes(meeting, {**given, **_meeting(meeting), **versions}, spread.peer_timeout)
    engine = None
    try:
        if meeting:
            meeting.check_port()
            # Starting an engine waits even for a failed process, and TensorFlow's blocks all threads meanwhile.
            group.agree(0)
        engine = module.Devices(group, meeting, spread)
        _current.append(engine)
        with engine.scope():
            yield engine
        engine.group.agree(0)  # no process leaves before process 0 has written the record
    except BaseException as error:
        if not group:
            raise
        first = _first_error(error, group, meeting)
        if first is error:
            raise
        raise first from error
    finally:
        if group:
            group.close()  # before the engine: it may wait for processes that wait for the group's message
        if engine:
            _current.remove(engine)
            engine.close()


def check_batch(batch_size: int, accumulate: int) -> None:
    """Rejects a batch size that does not divide over the devices; rounding it would change the training.

    Raises:
        UserError: the batch size does not divide; the message names the nearest that do.
    """
    parts = current().num_copies * accumulate
    if current().num_copies > 1 and batch_size % parts:
        below, of = batch_size // parts * parts, f" in {accumulate} steps" if accumulate > 1 else ""
        sizes = " or ".join(str(size) for size in (below, below + parts) if size)
        raise UserError(
            f"--batch-size {batch_size}: does not divide over {current().num_copies} devices{of}; give {sizes}"
        )


def _meeting(meeting: Rendezvous) -> dict:
    return {"the number of processes": meeting.num_processes, "the first one's port": meeting.port}


def _first_error(error: BaseException, group: Processes, meeting: Rendezvous) -> BaseException:
    """Tells the others why this process ends; returns the error to raise, which may be another process's."""
    if isinstance(error, Interrupted):
        group.close(first_line(error))
        return error
    is_unexpected = isinstance(error, Exception) and not isinstance(error, UserError)
    why = group.why(_SECONDS_FOR_THE_REASON if is_unexpected else 0.0)  # the engine may fail before the reason arrives
    is_signal = isinstance(error, SystemExit | KeyboardInterrupt)
    group.close(why or ("was told to stop" if is_signal else first_line(error)))
    if not isinstance(error, Exception) or (is_unexpected and not why):
        return error
    first_is_gone = why.startswith("process 0 ")
    if group.is_first or first_is_gone or not meeting.is_on_one_host:
        return UserError(why) if why else error
    return Quiet(2)
