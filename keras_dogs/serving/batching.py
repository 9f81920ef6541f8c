"""A queue in front of a model: it batches pictures of several requests, and refuses requests beyond its capacity."""

import asyncio
import collections
import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from keras_dogs.evaluation.inference import whole_batch

_WORTH_FILLING = 8  # pictures; below, one call that is padded is cheaper than two


class Overloaded(Exception):
    """There is no room in the queue.

    Args:
        seconds: int. After which there is likely to be some.
    """

    def __init__(self, seconds: int):
        super().__init__()
        self.seconds = seconds


class _Waiting(NamedTuple):
    canvas: np.ndarray
    answer: asyncio.Future


class Limits(NamedTuple):
    """How much a `Batcher` accepts.

    Attributes:
        max_batch: int. The most pictures in a batch.
        max_wait: float. Seconds that a picture waits for others if the model is idle.
        max_queue: int. The most pictures that are accepted and not yet answered.
        timeout: float. Seconds within which an answer must come. A request is refused if, at the pace of the last
            batches, the pictures before it would take more than half of that.
    """

    max_batch: int
    max_wait: float
    max_queue: int
    timeout: float


class Batcher:
    """Has a model answer canvases in a thread of its own, those that wait in one batch.

    Args:
        ask: function of uint8 canvases `(batch, rows, columns, 3)` to logits `(batch, num_classes)`.
        prepare: function of canvases: compiles or traces the model for batches of that size.
        shape: tuple of int. Of a canvas.
        any_batch: bool. Whether a new size of batch costs nothing; else there are only a few sizes.
        limits: `Limits`.
        on_batch: function of the number of pictures and the seconds of each batch, for metrics.
    """

    def __init__(self, ask: Callable, prepare: Callable, shape, any_batch: bool, limits: Limits, on_batch: Callable):
        self._ask, self._prepare, self._shape = ask, prepare, shape
        self._any_batch, self._on_batch = any_batch, on_batch
        self.limits, self.max_batch, self.max_wait = limits, limits.max_batch, limits.max_wait
        self.is_ready = False
        self.in_hand = 0  # pictures that were admitted, and are not answered yet
        self._answered, self._seconds = 0.0, 0.0  # pictures, and what they took; older ones count for less
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._has_come, self._is_full = asyncio.Event(), asyncio.Event()
        self._alone = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "model")

    def admit(self, count: int) -> "_Admitted":
        """Takes room for so many pictures, for a `with` block.

        Raises:
            Overloaded: there is none.
        """
        seconds = self.in_hand * self._seconds / self._answered if self._answered else 0.0
        if self.in_hand + count > self.limits.max_queue or seconds > self.limits.timeout / 2:
            raise Overloaded(min(max(math.ceil(seconds), 1), 60))
        return _Admitted(self, count)

    async def logits_of(self, canvases: list[np.ndarray]) -> np.ndarray:
        """Returns the logits of canvases that were admitted, `(num_pictures, num_classes)`."""
        waiting = [_Waiting(canvas, asyncio.get_running_loop().create_future()) for canvas in canvases]
        self._queue.extend(waiting)
        self._has_come.set()
        if len(self._queue) >= self.max_batch:
            self._is_full.set()
        try:
            return np.stack(await asyncio.gather(*(each.answer for each in waiting)))
        finally:
            if not all(each.answer.done() for each in waiting):  # whoever asked has gone
                for each in waiting:
                    each.answer.cancel()
                self._queue = collections.deque(each for each in self._queue if not each.answer.done())

    async def call_alone(self, function: Callable, *arguments):
        """Calls a function in the thread of the model, between two batches, one such call at a time."""
        async with self._alone:
            return await self._call(function, *arguments)

    async def _call(self, function: Callable, *arguments):
        """Calls a function in the thread of the model, and returns what it gives."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def warm_up(self) -> None:
        """Has the model answer a batch of each size that it will be given, so that no request waits for a compiler."""
        for size in {1, self.max_batch} if self._any_batch else self._sizes():
            await self._call(self._prepare, np.zeros((size, *self._shape), np.uint8))
        self.is_ready = True

    async def work(self) -> None:
        """Answers what comes, until it is cancelled."""
        while True:
            was_idle = not self._queue
            await self._has_come.wait()
            if was_idle and self.max_wait:  # else others have waited while it worked
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_full.wait(), self.max_wait)
            batch = self._take()
            if batch:
                await self._answer(batch)

    def close(self) -> None:
        """Ends the thread, after what it is at."""
        self._thread.shutdown(cancel_futures=True)

    def _sizes(self) -> list[int]:
        """Returns the sizes of batches: powers of two and, from 8 on, what is half-way between them."""
        powers = [1 << power for power in range(self.max_batch.bit_length())]
        between = [3 * power // 2 for power in powers if power >= 8]
        return sorted({size for size in (*powers, *between, self.max_batch) if size <= self.max_batch})

    def _take(self) -> list[_Waiting]:
        """Takes a batch from the queue, less what nobody waits for."""
        waiting = [each for each in self._queue if not each.answer.done()]
        count = self._count_to_take(len(waiting))
        batch, self._queue = waiting[:count], collections.deque(waiting[count:])
        if not self._queue:
            self._has_come.clear()
        if len(self._queue) < self.max_batch:
            self._is_full.clear()
        return batch

    def _count_to_take(self, waiting: int) -> int:
        """Returns how many of those that wait go into a batch: from 8 on, as many as fill one, and the rest wait.

        Two batches of 16 take as long as one of 32, but 17 pictures padded to 24 take half as long again as 16.
        """
        if self._any_batch or waiting < _WORTH_FILLING:
            return min(waiting, self.max_batch)
        return max(size for size in self._sizes() if size <= waiting)

    async def _answer(self, batch: list[_Waiting]) -> None:
        began, count = time.perf_counter(), len(batch)
        try:
            size = count if self._any_batch else next(size for size in self._sizes() if size >= count)
            logits = await self._call(self._ask, whole_batch([each.canvas for each in batch], size))
        except Exception as error:
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, row in zip(batch, logits):
            if not each.answer.done():
                each.answer.set_result(row)
        seconds = time.perf_counter() - began
        self._answered, self._seconds = 0.8 * self._answered + count, 0.8 * self._seconds + seconds
        self._on_batch(count, seconds)


class _Admitted:
    def __init__(self, batcher: Batcher, count: int):
        self.batcher, self.count = batcher, count

    def __enter__(self):
        self.batcher.in_hand += self.count
        return self

    def __exit__(self, *_):
        self.batcher.in_hand -= self.count
