"""One or many devices, in one process or several: joined once, and asked by whoever needs to know.

`group` is what processes tell each other, the same everywhere; each backend's own engine is
`on_<backend>/devices.py`. Where nothing was joined, `current()` is one device.
"""

import contextlib

from keras_dogs import backends
from keras_dogs.backends.devices.engine import Engine
from keras_dogs.backends.devices.engine import Spread
from keras_dogs.backends.devices.group import Processes
from keras_dogs.backends.devices.group import Rendezvous
from keras_dogs.errors import Interrupted
from keras_dogs.errors import Quiet
from keras_dogs.errors import UserError
from keras_dogs.errors import first_line

_SECONDS_FOR_THE_REASON = 3.0

_current: list[Engine] = [Engine()]


def current() -> Engine:
    """Returns the engine of this process."""
    return _current[-1]


@contextlib.contextmanager
def join(spread: Spread, told: dict, backend_name: str, versions: dict):
    """Meets the other processes, if there are any, and takes the devices; gives the `Engine`.

    A failure inside is told to the other processes, and theirs becomes one here.

    Args:
        spread: `Spread`.
        told: dict of str to anything. The flags that must be the same in each process, with their values.
        backend_name: str.
        versions: dict of str to str. Of what must be the same.

    Raises:
        UserError: a process is missing, differs or failed; or there are not so many devices.
    """
    module = backends.module_of("devices", backend_name)
    meeting = module.find_rendezvous(spread)
    if meeting is None and spread.devices is None and spread.model_shards == 1:
        yield current()
        return
    group = meeting and Processes(meeting, {**told, **_meeting(meeting), **versions}, spread.peer_timeout)
    engine = None
    try:
        if meeting:
            meeting.check_port()
            group.agree(0)  # engines wait for one that has failed, TensorFlow's without letting another thread run
        engine = module.Devices(group, meeting, spread)
        _current.append(engine)
        with engine.scope():
            yield engine
        engine.group.agree(0)  # none leaves before the first has written the record
    except BaseException as error:
        if not group:
            raise
        first = _first_error(error, group, meeting)
        if first is error:
            raise
        raise first from error
    finally:
        if group:
            group.close()  # before the engine, which may wait for others that wait to be told
        if engine:
            _current.remove(engine)
            engine.close()


def check_batch(batch_size: int, accumulate: int) -> None:
    """Refuses a batch that cannot be divided evenly: another size would be another training.

    Raises:
        UserError: it names the sizes that can.
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
    """Returns what ended all processes: this one's error, or, where that came of another's end, that one's."""
    if isinstance(error, Interrupted):
        group.close(first_line(error))
        return error
    is_unexpected = isinstance(error, Exception) and not isinstance(error, UserError)
    why = group.why(_SECONDS_FOR_THE_REASON if is_unexpected else 0.0)  # an engine notices before the group does
    is_signal = isinstance(error, SystemExit | KeyboardInterrupt)
    group.close(why or ("was told to stop" if is_signal else first_line(error)))
    if not isinstance(error, Exception) or (is_unexpected and not why):
        return error
    first_is_gone = why.startswith("process 0 ")
    if group.is_first or first_is_gone or not meeting.is_on_one_host:
        return UserError(why) if why else error
    return Quiet(2)
