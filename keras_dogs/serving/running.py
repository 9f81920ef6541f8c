"""Runs the server from its port to its end."""

import contextlib
import json
import os
import signal
import socket
import threading
from http import HTTPStatus

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from keras_dogs.errors import UserError
from keras_dogs.serving import app
from keras_dogs.serving.config import ServeConfig
from keras_dogs.serving.served import Served
from keras_dogs.system import progress

_SECONDS_TO_END = 30  # for the requests in hand
_MOST_FILES = 65_536
_SECONDS_TO_BEGIN = 30  # for the head of a request on a new connection


class _Server(uvicorn.Server):
    """Ends after the requests in hand on any of the three signals, with status 0; at once on a second Ctrl-C."""

    @contextlib.contextmanager
    def capture_signals(self):
        """See `uvicorn.Server`, which would raise the signal again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {each: signal.signal(each, self.handle_exit) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class _Protocol(H11Protocol):
    """Answers what is no HTTP, and who says nothing, in JSON, as everything else."""

    def connection_made(self, transport) -> None:
        """See `H11Protocol`."""
        super().connection_made(transport)
        self.loop.call_later(_SECONDS_TO_BEGIN, self._end_if_silent)

    def send_400_response(self, msg: str) -> None:
        """See `H11Protocol`."""
        self._refuse(400, "this is no HTTP request")

    def _end_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self._refuse(408, f"no request came within {_SECONDS_TO_BEGIN} s")

    def _refuse(self, status: int, why: str) -> None:
        body = json.dumps({"error": why}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        head = h11.Response(status_code=status, headers=list(headers.items()), reason=HTTPStatus(status).phrase)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()


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


def server_of(config: ServeConfig, models: list[Served]) -> uvicorn.Server:
    """Returns the server of models, which `run(sockets=[listener])` starts."""
    service = app.Service(config, models)
    return _Server(
        uvicorn.Config(
            app.build(service),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            http=_Protocol,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_SECONDS_TO_END,
            h11_max_incomplete_event_size=2**16,
            ws="none",
        )
    )


def _allow_connections() -> None:
    """Raises the number of open files that this process may have: each connection is one."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def run(config: ServeConfig, models: list[Served], listener: socket.socket) -> None:
    """Answers requests until a signal comes."""
    _allow_connections()
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = " and ".join(each.name for each in models)
    console = progress.open_console()
    console.print(f"{names} at http://{shown}:{port} (process {os.getpid()}; Ctrl-C ends it)")
    server_of(config, models).run(sockets=[listener])
    console.print("ended; every request in hand was answered")
