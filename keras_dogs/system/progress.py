"""Progress on the standard error stream: a live bar on a terminal, now and then a line elsewhere."""

import contextlib
import os
import sys
import time

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.progress import TimeRemainingColumn

from keras_dogs.system import terminal

# Where output is not a terminal, a long wait says something this often.
SECONDS_BETWEEN_LINES = 20.0


_is_quiet = [False]


def be_quiet() -> None:
    """Turns progress off from now on: another process of the same training run shows it."""
    _is_quiet[0] = True


class _Unbreakable:
    """A stream that goes on in silence when whoever read it has gone: no training ends for want of a reader."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def open_console(stream=None) -> Console:
    """Returns the console that progress goes to, the error stream if none is given; results have the other."""
    stream = _Unbreakable(stream or sys.stderr)
    return _Plain(file=stream, highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=_is_quiet[0])


class _Plain(Console):
    """A console that prints text as it is, but for control characters, which become escapes."""

    def print(self, *objects, **options):
        super().print(*(terminal.lines(each) if isinstance(each, str) else each for each in objects), **options)


def open_bar(console: Console, *columns) -> Progress:
    """Returns a live bar with `columns` of text after the counts; it disappears when done."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


@contextlib.contextmanager
def counting(description: str, total: int):
    """Shows the progress of `total` steps; yields a function to call after each, or after several, from any thread."""
    console = open_console()
    started = time.perf_counter()
    if console.is_terminal:
        with open_bar(console) as bar:
            task = bar.add_task(description, total=total)
            yield lambda steps=1: bar.advance(task, steps)
    else:
        lines = _Lines(console, description, total, started)
        yield lines.advance
    console.print(f"{description}: {total:,} in {time.perf_counter() - started:.1f} s")


@contextlib.contextmanager
def waiting(description: str):
    """Shows that work of unknown length is under way; yields a function to call now and then meanwhile."""
    console = open_console()
    started = last = time.perf_counter()
    if console.is_terminal:
        with console.status(terminal.printable(description)):
            yield lambda: None
    else:
        console.print(description)

        def still_there():
            nonlocal last
            if time.perf_counter() - last > SECONDS_BETWEEN_LINES:
                last = time.perf_counter()
                console.print(f"{description}: {last - started:.0f} s so far")

        yield still_there
    console.print(f"{description}: {time.perf_counter() - started:.1f} s")


@contextlib.contextmanager
def busy(what: str):
    """Shows on a terminal what a block does while it runs; elsewhere nothing is said."""
    if not open_console().is_terminal:
        yield
        return
    # A stream of its own: TensorFlow's words are kept from the error stream while it loads.
    with open(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="backslashreplace") as stream:
        with open_console(stream).status(terminal.printable(what)):
            yield


class _Lines:
    def __init__(self, console, description, total, started):
        self.console, self.description, self.total = console, description, total
        self.done, self.started, self.last = 0, started, started

    def advance(self, steps: int = 1):
        self.done += steps
        now = time.perf_counter()
        if now - self.last > SECONDS_BETWEEN_LINES:
            self.last = now
            left = (now - self.started) / self.done * (self.total - self.done)
            self.console.print(f"{self.description}: {self.done:,} of {self.total:,}, {left:.0f} s left")
