"""Connects two processes, and packs values and arrays into the bytes that are sent."""

import contextlib
import io
import json
import queue
import socket
import struct
import threading
import time

import numpy as np

# The kinds of frames, one byte each. HELLO comes first, ALIVE is a sign of life, ERROR or BYE is the last.
HELLO, ALIVE, DATA, ERROR, BYE = b"HADEB"

# The head of a frame: its kind, and the length of its content.
_FRAME = struct.Struct("!BQ")


class Link:
    """Sends frames over a connection, and reads them in a thread of its own.

    Args:
        connection: `socket.socket`.
        timeout: float. Seconds after which sending to a host that does not acknowledge fails.

    Attributes:
        received: queue of bytes, one item for each DATA frame; then `None` after an error or a lost connection, nothing
            after a BYE.
        heard: float. When the other side was last heard from, by `time.monotonic()`.
        error: str or `None`. What the other side sent, or what `group` found wrong with the connection; empty if it was
            lost without a word; `None` while all is well.
    """

    def __init__(self, connection: socket.socket, timeout: float):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # sending to a lost host fails after `timeout`
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * timeout))
        self.connection, self.received = connection, queue.Queue()
        self.heard, self.error = time.monotonic(), None
        self._sending = threading.Lock()

    def start(self) -> None:
        """Starts the thread that reads the connection."""
        self.heard = time.monotonic()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, kind: int, content: bytes) -> None:
        """Sends a frame of one kind."""
        with self._sending:
            self.connection.sendall(_FRAME.pack(kind, len(content)))
            self.connection.sendall(content)

    def send_sign(self) -> None:
        """Sends a sign of life, unless another frame is being sent: that is a sign of life, too."""
        if self._sending.acquire(blocking=False):
            try:
                self.connection.sendall(_FRAME.pack(ALIVE, 0))
            finally:
                self._sending.release()

    def read(self, most: int | None = None) -> tuple[int, bytes]:
        """Reads a frame and returns its kind and content.

        Args:
            most: int or `None`. The most bytes that the content may have.

        Raises:
            ValueError: it has more.
            EOFError: the connection was closed.
            OSError: the connection failed.
        """
        kind, length = _FRAME.unpack(self._read_exactly(_FRAME.size))
        if most is not None and length > most:
            raise ValueError(f"{length} bytes")
        return kind, self._read_exactly(length)

    def close(self) -> None:
        """Closes the connection, even while a thread waits on it."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def _read_exactly(self, length: int) -> bytes:
        content = bytearray(length)
        view = memoryview(content)
        while view:
            count = self.connection.recv_into(view)
            if not count:
                raise EOFError
            self.heard = time.monotonic()
            view = view[count:]
        return bytes(content)

    def _listen(self) -> None:
        try:
            while True:
                kind, content = self.read()
                if kind == DATA:
                    self.received.put(content)
                elif kind == ERROR:
                    self.error = content.decode()
                    break
                elif kind == BYE:
                    return
        except (OSError, EOFError):
            self.error = self.error or ""
        self.received.put(None)


def pack(value, arrays: dict) -> bytes:
    """Packs a JSON value and named arrays into bytes."""
    content = io.BytesIO()
    np.savez(content, **{f"array/{name}": array for name, array in arrays.items()}, json=_bytes_of(value))
    return content.getvalue()


def unpack(content: bytes):
    """Unpacks the bytes of `pack`: returns the value and the arrays."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        arrays = {name.removeprefix("array/"): found[name] for name in found.files if name != "json"}
        return json.loads(found["json"].tobytes()), arrays


def _bytes_of(value) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def join_parts(parts: list[bytes]) -> bytes:
    """Joins parts into one byte string, each preceded by its length."""
    return b"".join(struct.pack("!Q", len(part)) + part for part in parts)


def split_parts(content: bytes) -> list[bytes]:
    """Splits what `join_parts` has joined."""
    parts, place = [], 0
    while place < len(content):
        (length,) = struct.unpack_from("!Q", content, place)
        parts.append(content[place + 8 : place + 8 + length])
        place += 8 + length
    return parts
