"""Runs the server from its port to its end."""

import contextlib
import math
import os
import signal
import socket
import threading

import uvicorn

from keras_dogs.errors import UserError
from keras_dogs.errors import first_line
from keras_dogs.serving import app
from keras_dogs.serving.config import ServeConfig
from keras_dogs.serving.connections import Protocol
from keras_dogs.serving.served import Served
from keras_dogs.system import posix
from keras_dogs.system import progress
from keras_dogs.system import signals

_SECONDS_TO_END = 60  # at most, for the requests in hand
_MOST_FILES = 65_536


class _Server(uvicorn.Server):
    """Ends after the requests in hand on any of the three signals, with status 0; at once on a second Ctrl-C."""

    num_left = 0  # requests that were in hand at the end

    async def shutdown(self, sockets=None) -> None:
        """See `uvicorn.Server`."""
        await super().shutdown(sockets)
        self.num_left = len(self.server_state.tasks)

    @contextlib.contextmanager
    def capture_signals(self):
        """See `uvicorn.Server`, which would raise the signal again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in signals.STOPS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def listen(config: ServeConfig) -> socket.socket:
    """Takes the port.

    Raises:
        UserError: it is taken, or there is no such address.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=1024)
    except OSError as error:
        raise UserError(
            f"--host {config.host} --port {config.port}: {error.strerror or error}; choose another port, or end what "
            "is there"
        ) from error


def server_of(config: ServeConfig, service: app.Service) -> uvicorn.Server:
    """Returns the server of a service, which `run(sockets=[listener])` starts."""
    server = _Server(
        uvicorn.Config(
            app.build(service),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            http=Protocol,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=min(math.ceil(2 * config.timeout), _SECONDS_TO_END),
            proxy_headers=False,
            h11_max_incomplete_event_size=2**16,
            ws="none",
        )
    )

    def end() -> None:
        server.should_exit = True

    service.end = end
    return server


def run(config: ServeConfig, models: list[Served], listener: socket.socket) -> int:
    """Answers requests until a signal comes; returns the exit status."""
    posix.allow_open_files(_MOST_FILES)  # each connection is one
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = " and ".join(each.name for each in models)
    console = progress.open_console()
    console.print(f"{names} at http://{shown}:{port} (process {os.getpid()}; Ctrl-C ends it)")
    service = app.Service(config, models)
    server = server_of(config, service)
    server.run(sockets=[listener])
    if service.failure:
        console.print(f"ended: a model failed: {type(service.failure).__name__}: {first_line(service.failure)}")
        return 1
    if server.num_left:
        console.print(f"ended; requests that were not answered: {server.num_left:,}")
        return 1
    console.print("ended; every request in hand was answered")
    return 0
