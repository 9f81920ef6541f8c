"""A request's pictures: read within limits of size and time, and decoded in threads."""

import asyncio
import contextlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from keras_dogs.data.datasets.opening import UnreadablePicture
from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.opening import to_canvas
from keras_dogs.serving.batching import Overloaded
from keras_dogs.system import terminal

_BODIES = 8  # of the largest size, in memory at once
_MOST_DECODERS = 4  # each may hold a picture of the largest size
_RAW = ("", "application/octet-stream", "binary/octet-stream")


class Upload(NamedTuple):
    """A picture as it came.

    Attributes:
        name: str. Of the file, printable; empty where none was given.
        content: bytes.
    """

    name: str
    content: bytes


class Reader:
    """Reads the bodies of requests, and opens pictures.

    Args:
        max_bytes: int. The largest body.
        max_pixels: int. The largest picture.
        max_pictures: int. The most of a request.
        timeout: float. Seconds for a body to arrive.
    """

    def __init__(self, max_bytes: int, max_pixels: int, max_pictures: int, timeout: float):
        self.max_bytes, self.max_pixels, self.max_pictures = max_bytes, max_pixels, max_pictures
        self.timeout = timeout
        self.bytes_in_hand = 0
        self._decoders = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_DECODERS), "decoding")

    @contextlib.contextmanager
    def room(self, request: Request):
        """Counts the bytes of a request's body as they arrive, and releases them after the block."""
        request.state.size = 0
        try:
            yield
        finally:
            self.bytes_in_hand -= request.state.size

    async def read_body(self, request: Request) -> bytes:
        """Returns the body of a request.

        Raises:
            HTTPException: 408 where it does not arrive in time, 413 where it is too large.
        """
        return await self._in_time(self._collect(request))

    async def read_pictures(self, request: Request) -> list[Upload]:
        """Returns the pictures of a request: the parts of a form that are files, or the body itself.

        Raises:
            HTTPException: 400 where there is none, or the form is damaged; 408, 413; 415 for another content type.
        """
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        kind = kind.decode("latin-1").lower()
        if kind == "multipart/form-data":
            if b"boundary" not in options:
                raise HTTPException(400, "the form has no boundary in its content type")
            uploads = await self._in_time(self._of_form(request))
        elif kind in _RAW or kind.startswith("image/"):
            content = await self.read_body(request)
            uploads = [Upload("", content)] if content else []
        else:
            raise HTTPException(
                415, f"content type {terminal.one_line(kind, 80)}: send multipart/form-data, or a picture as image/*"
            )
        if not uploads:
            raise HTTPException(400, "there is no picture in this request")
        return uploads

    async def open_all(self, uploads: list[Upload], canvas: dict) -> list[np.ndarray | str]:
        """Returns the canvas of each picture, or why it cannot be read."""
        return await asyncio.gather(*(self.in_thread(self._open, upload.content, canvas) for upload in uploads))

    async def in_thread(self, function: Callable, *arguments):
        """Calls a function in a thread, while the event loop goes on, and returns what it gives."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    def close(self) -> None:
        """Ends the threads."""
        self._decoders.shutdown(cancel_futures=True)

    def _open(self, content: bytes, canvas: dict) -> np.ndarray | str:
        try:
            return to_canvas(open_picture(io.BytesIO(content), self.max_pixels), **canvas)
        except UnreadablePicture as error:
            return str(error)

    async def _in_time(self, reading):
        try:
            return await asyncio.wait_for(reading, self.timeout)
        except TimeoutError:
            raise HTTPException(
                408, f"the request did not arrive within {self.timeout:g} s", {"connection": "close"}
            ) from None

    async def _collect(self, request: Request) -> bytes:
        return b"".join([part async for part in self._limited(request)])

    async def _limited(self, request: Request):
        """Yields the parts of a body, up to the limit."""
        said, total = request.headers.get("content-length", ""), 0
        if said.isdecimal() and int(said) > self.max_bytes:
            raise self._too_large()
        async for part in request.stream():
            total += len(part)
            request.state.size += len(part)
            self.bytes_in_hand += len(part)
            if total > self.max_bytes:
                raise self._too_large()
            if self.bytes_in_hand > _BODIES * self.max_bytes:
                raise Overloaded(1)
            yield part

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the request is larger than {self.max_bytes / 1e6:g} MB", {"connection": "close"})

    async def _of_form(self, request: Request) -> list[Upload]:
        parser = MultiPartParser(
            request.headers, self._limited(request), max_files=self.max_pictures, max_fields=self.max_pictures
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many"):  # files, or fields
                what = "pictures" if "files" in error.message else "fields"
                raise HTTPException(400, f"a request may have {self.max_pictures} {what} at most") from error
            raise HTTPException(400, f"the form is damaged: {error.message}") from error
        except (ValueError, LookupError) as error:  # of its character set
            raise HTTPException(400, f"the form is damaged: {terminal.one_line(error, 200)}") from error
        try:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            return [Upload(terminal.one_line(file.filename or "", 200), await file.read()) for file in files]
        finally:
            await form.close()
