"""The flags of `serve`, with their help; the field is the flag."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from keras_dogs.errors import UserError
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges

_SECONDS = Range(0, 86_400, above=True)


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """Classify pictures over HTTP, for people on a web page and for programs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, .keras files or exported folders; the page shows the answers of several side by side."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 lets other machines in, without authentication."""
    port: int = 8000
    """The port to listen on."""
    max_batch: int = 32
    """The most pictures that a model answers at once."""
    max_wait_ms: float = 5.0
    """How long a picture waits for others that join its batch."""
    max_queue: int = 256
    """The most pictures in progress per model; further requests are refused with 503."""
    max_upload_mb: float = 32.0
    """The largest request, in megabytes."""
    max_megapixels: float = 50.0
    """The largest picture."""
    timeout: float = 30.0
    """Seconds: for a request to arrive, and again for its answer."""

    def __post_init__(self):
        ranges = {
            "port": Range(0, 65_535),
            "max_batch": Range(1, 4096),
            "max_wait_ms": Range(0, 10_000),
            "max_queue": Range(1, 100_000),
            "max_upload_mb": Range(0, 10_000, above=True),
            "max_megapixels": Range(0, 178, above=True),
            "timeout": _SECONDS,
        }
        check_ranges(self, ranges)
        if not self.runs:
            raise UserError("RUNS: none were given; name a run folder, a .keras file or an exported folder")
        if self.max_queue < self.max_batch:
            raise UserError(f"--max-queue {self.max_queue}: is less than --max-batch {self.max_batch}; raise it")

    @property
    def max_bytes(self) -> int:
        """The largest body of a request."""
        return int(self.max_upload_mb * 1e6)

    @property
    def max_pixels(self) -> int:
        """The most pixels of a picture."""
        return int(self.max_megapixels * 1e6)
