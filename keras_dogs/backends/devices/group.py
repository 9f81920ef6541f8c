"""The processes of one training: who is there, what they tell each other, and that none is left waiting.

Each process has a connection to the first one, beside the engine's own (NCCL, Gloo, gRPC). It carries everything except
the tensors of a step: whether all processes have the same flags, that one was asked to stop, logits, the state of a
checkpoint. It also detects a process that failed or is gone, tells the others the first error, and ends those that
would wait in the engine for ever. It works the same on every backend; their own means for this differ or are missing.

Nothing that comes over a connection is executed: messages are bytes, JSON and arrays.
"""

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import time
from typing import NamedTuple

import numpy as np

from keras_dogs.backends.devices import links
from keras_dogs.errors import UserError

_SECONDS_BETWEEN_SIGNS = 1.0  # at most: four come within the time after which silence counts as an end


_SECONDS_FOR_HELLO, _BYTES_OF_HELLO = 10.0, 2**20


# How long the main thread has to notice by itself that another process is gone, before this process is ended.
_SECONDS_TO_NOTICE = 15.0


_taken: set[int] = set()  # ports of this process' own engine, which outlives a training


class Rendezvous(NamedTuple):
    """Where the processes of a training meet.

    Attributes:
        host: str. The first process'.
        port: int. Of the engine; the group takes another: `control_port`.
        num_processes: int.
        process: int. Which one this is, from 0.
        source: str. What said so, for errors: `"TF_CONFIG"`.
        listens_at: int or `None`. The port that this process' engine is about to take.
    """

    host: str
    port: int
    num_processes: int
    process: int
    source: str
    listens_at: int | None = None

    @property
    def control_port(self) -> int:
        """The group's port: 1000 above the engine's, or below where there is none above."""
        return self.port + 1000 if self.port + 1000 < 65536 else self.port - 1000

    @property
    def is_on_one_host(self) -> bool:
        """Whether all processes are on this host, where one of them speaks for all."""
        return self.host in ("localhost", "127.0.0.1")

    def check_port(self) -> None:
        """Refuses a port that another program has: engines crash or wait for it.

        Raises:
            UserError: it is in use.
        """
        if self.listens_at is None or self.listens_at in _taken:
            return
        try:
            socket.create_server(("", self.listens_at)).close()
        except OSError as error:
            raise UserError(
                f"port {self.listens_at} of {self.source}: {os.strerror(error.errno)}; choose another"
            ) from error
        _taken.add(self.listens_at)


class Group:
    """One process alone; `Processes` has several."""

    num_processes, process = 1, 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.process == 0

    def exchange(self, data: bytes) -> list[bytes]:
        """Waits for all processes and returns the values that they give, in their order."""
        return [data]

    def agree(self, number: int) -> int:
        """Returns the greatest number that a process gives."""
        return max(struct.unpack("!q", each)[0] for each in self.exchange(struct.pack("!q", number)))

    def from_first(self, value, arrays: dict | None = None):
        """Returns what the first process gives, JSON values and named arrays; what the others give is ignored."""
        if self.num_processes == 1:
            return value, arrays or {}
        first = self.exchange(links.pack(value, arrays or {}) if self.is_first else b"")[0]
        return links.unpack(first)

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Returns the arrays of all processes, in their order."""
        return [links.unpack(each)[1]["array"] for each in self.exchange(links.pack(None, {"array": array}))]

    def close(self, error: str = "") -> None:
        """Leaves the group; where an error is given, the other processes end, too."""


class Processes(Group):
    """Several processes that are connected.

    Args:
        meeting: `Rendezvous`.
        given: dict of str to what JSON can hold. What must be the same in all; the first process compares.
        timeout: float. Seconds: for a process to come, and without a sign of one before it counts as gone.

    Raises:
        UserError: one does not come, the port is in use, or one was told something else.
    """

    was_joined = False  # by this Python process, ever

    def __init__(self, meeting: Rendezvous, given: dict, timeout: float):
        Processes.was_joined = True
        self.num_processes, self.process = meeting.num_processes, meeting.process
        self.meeting, self.timeout = meeting, timeout
        self.error = ""
        self._closing = False
        self._failed = threading.Event()
        self._links: dict[int, links.Link] = {}
        try:
            (self._accept_others if self.is_first else self._connect_to_first)(given)
        except BaseException:
            self._hang_up()
            raise
        threading.Thread(target=self._watch, daemon=True).start()

    def exchange(self, data: bytes) -> list[bytes]:
        """See `Group`.

        Raises:
            UserError: another process failed or is gone.
        """
        if not self.is_first:
            self._send(0, data)
            return links.split_parts(self._receive(0))
        others = range(1, self.num_processes)
        everything = [data, *(self._receive(process) for process in others)]
        together = links.join_parts(everything)
        for process in others:
            self._send(process, together)
        return everything

    def close(self, error: str = "") -> None:
        """See `Group`."""
        if self._closing:
            return
        self._closing = True
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.send(links.ERROR if error else links.BYE, self._from_here(error) if error else b"")
        self._hang_up()

    def why(self, seconds: float = 0.0) -> str:
        """Waits some seconds for the reason why another process failed; empty where none did."""
        self._failed.wait(seconds)
        return self.error

    # Meeting

    def _accept_others(self, given: dict) -> None:
        meeting, deadline = self.meeting, time.monotonic() + self.timeout
        address = meeting.host if meeting.is_on_one_host else ""
        try:
            listener = socket.create_server((address, meeting.control_port))
        except OSError as error:
            raise UserError(
                f"port {meeting.control_port}: {os.strerror(error.errno)}; the processes of a training talk there "
                f"(1000 beside {meeting.port} of {meeting.source}); choose another port"
            ) from error
        with listener:
            while len(self._links) < meeting.num_processes - 1:
                listener.settimeout(max(deadline - time.monotonic(), 0.01))
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    missing = sorted(set(range(1, meeting.num_processes)) - set(self._links))
                    raise self._refuse(
                        f"process {', '.join(map(str, missing))} of {meeting.num_processes} did not come within "
                        f"{self.timeout:g} s: start it, or give --peer-timeout more"
                    ) from None
                self._greet(connection, given)
        for link in self._links.values():
            link.send(links.HELLO, b"")
            link.start()

    def _greet(self, connection: socket.socket, given: dict) -> None:
        link = links.Link(connection, self.timeout)
        try:
            connection.settimeout(_SECONDS_FOR_HELLO)
            kind, content = link.read(_BYTES_OF_HELLO)
            said = json.loads(content) if kind == links.HELLO else None
            process, theirs = int(said["process"]), dict(said["told"])
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            connection.close()  # something else that tries ports
            return
        connection.settimeout(None)
        if process in self._links or not 0 < process < self.num_processes:
            link.send(links.ERROR, f"process {process}: there is one already, or there are fewer".encode())
            link.close()
            raise self._refuse(f"two processes call themselves {process}, or there are fewer: each has its own number")
        self._links[process] = link
        for name in given.keys() | theirs.keys():
            if given.get(name) != theirs.get(name):
                raise self._refuse(
                    f"process {process} has {name} {theirs.get(name)}, process 0 has {given.get(name)}; start all "
                    "processes alike"
                )

    def _refuse(self, why: str) -> UserError:
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.send(links.ERROR, why.encode())
        return UserError(why)

    def _connect_to_first(self, given: dict) -> None:
        meeting, deadline = self.meeting, time.monotonic() + self.timeout
        where = f"{meeting.host}:{meeting.control_port}"
        while True:
            try:
                connection = socket.create_connection((meeting.host, meeting.control_port), _SECONDS_FOR_HELLO)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"no answer from process 0 at {where} within {self.timeout:g} s ({error.strerror or error}): "
                        f"is it running, and does {meeting.source} name its host?"
                    ) from error
                time.sleep(0.1)
        connection.settimeout(self.timeout)
        link = self._links[0] = links.Link(connection, self.timeout)
        try:
            link.send(links.HELLO, json.dumps({"process": self.process, "told": given}).encode())
            kind, content = link.read(_BYTES_OF_HELLO)
        except (OSError, EOFError) as error:
            raise UserError(f"process 0 at {where} ended while the others came") from error
        except ValueError as error:
            raise UserError(f"what answers at {where} is no process of a training; choose another port") from error
        if kind == links.ERROR:
            raise UserError(content.decode())
        connection.settimeout(None)
        link.start()

    # Watching

    def _watch(self) -> None:
        while not self._failed.wait(min(_SECONDS_BETWEEN_SIGNS, self.timeout / 4)):
            for process, link in self._links.items():
                with contextlib.suppress(OSError):
                    link.send_sign()
                silence = time.monotonic() - link.heard
                if link.error is None and silence > self.timeout:
                    link.error = f"process {process} has given no sign for {silence:.0f} s"
                if self._closing:
                    return
                if link.error is not None and not self._failed.is_set():
                    self._fail(link.error or f"process {process} ended without a word (killed?)")
        time.sleep(_SECONDS_TO_NOTICE)
        if not self._closing:  # the main thread waits for the engine, which waits for what is gone
            print(f"keras_dogs.train: error: {self.error}", file=sys.stderr, flush=True)
            os._exit(2)

    def _fail(self, why: str) -> None:
        self.error = why
        self._failed.set()
        for link in self._links.values():
            link.received.put(None)
        for link in self._links.values() if self.is_first else ():  # the others know of each other through this one
            with contextlib.suppress(OSError):
                link.send(links.ERROR, why.encode())

    def _from_here(self, error: str) -> bytes:
        return (error if error == self.error else f"process {self.process}: {error}").encode()

    def _receive(self, process: int) -> bytes:
        content = self._links[process].received.get()
        if content is None:
            self._failed.wait(_SECONDS_BETWEEN_SIGNS * 3)
            raise UserError(self.error or f"process {process} ended without a word (killed?)")
        return content

    def _send(self, process: int, data: bytes) -> None:
        with contextlib.suppress(OSError):  # `_receive` says why
            self._links[process].send(links.DATA, data)

    def _hang_up(self) -> None:
        for link in self._links.values():
            link.close()
