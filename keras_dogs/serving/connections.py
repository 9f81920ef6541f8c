"""Connections of clients: how long they may be silent, and how they end."""

import asyncio
import json
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS_TO_BEGIN = 30  # for the head of a request to arrive
_SECONDS_TO_END = 5  # for a client that has its answer to stop sending


class _Transport:
    """A connection whose end does not cost the client its answer.

    A socket that is closed with unread input resets the connection, and the client may lose the answer. `close` thus
    reads on, drops what comes, and closes when the client does, or after `_SECONDS_TO_END`. A second `close` acts at
    once. All else is passed on to the `asyncio.Transport`.
    """

    def __init__(self, transport: asyncio.Transport, conn: h11.Connection):
        self._transport, self._conn = transport, conn
        self._ending: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str):
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """See `asyncio.Transport`."""
        return self._ending is not None or self._transport.is_closing()

    def close(self) -> None:
        """See `asyncio.Transport`."""
        is_more_to_come = self._conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if is_more_to_come and not self.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._ending = asyncio.get_running_loop().call_later(_SECONDS_TO_END, self._transport.close)
            return
        if self._ending is not None:
            self._ending.cancel()
        self._transport.close()


class Protocol(H11Protocol):
    """Also answers, in JSON, input that is not HTTP and connections that send no request."""

    _silent = None  # a timer that ends the connection unless the head of a request has arrived by then

    def connection_made(self, transport) -> None:
        """See `H11Protocol`."""
        super().connection_made(_Transport(transport, self.conn))
        self._watch()

    def data_received(self, data: bytes) -> None:
        """See `H11Protocol`."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def connection_lost(self, exc) -> None:
        """See `H11Protocol`."""
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        """Gives a head that has begun to arrive, or has to, its time."""
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._silent is None:
            self._silent = self.loop.call_later(_SECONDS_TO_BEGIN, self._end_if_silent)

    def _forget(self) -> None:
        if self._silent is not None:
            self._silent.cancel()
        self._silent = None

    def send_400_response(self, msg: str) -> None:
        """See `H11Protocol`."""
        self._refuse(400, "this is not an HTTP request")

    def _end_if_silent(self) -> None:
        self._silent = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._refuse(408, f"no request came within {_SECONDS_TO_BEGIN} s")

    def _refuse(self, status: int, why: str) -> None:
        body = json.dumps({"error": why}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        head = h11.Response(status_code=status, headers=list(headers.items()), reason=HTTPStatus(status).phrase)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()
