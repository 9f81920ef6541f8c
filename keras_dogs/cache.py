"""Show what is kept for later runs, or remove it: `python -m keras_dogs.cache [--empty]`."""

import dataclasses
import sys
import time
from pathlib import Path

from keras_dogs import commands
from keras_dogs.system import caches
from keras_dogs.system.flags import Range
from keras_dogs.system.flags import check_ranges


@dataclasses.dataclass(frozen=True)
class CacheConfig:
    """Show what is kept for later runs: decoded pictures, features, downloaded .npz files, compiled programs."""

    empty: bool = False
    """Remove it."""
    older_than: float = 0.0
    """Only what was not used for so many days."""
    cache_dir: Path | None = None
    """Another folder; default: KERAS_DOGS_CACHE, or this system's usual cache folder."""

    def __post_init__(self):
        check_ranges(self, {"older_than": Range(0, 10**6)})


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("cache", CacheConfig, _cache)


def _cache(config: CacheConfig) -> None:
    with caches.use(config.cache_dir):
        _show_or_empty(config)


def _show_or_empty(config: CacheConfig) -> None:
    entries = caches.entries(config.older_than)
    for entry in entries:
        used = time.strftime("%Y-%m-%d", time.localtime(entry.used))
        print(f"{entry.kind:<10}{entry.size / 2**20:>10,.1f} MiB  last used {used}  {entry.name}")
    left = caches.remove(entries) if config.empty else []
    total = sum(entry.size for entry in entries if entry not in left) / 2**20
    print(f"{caches.root()}: {'removed ' if config.empty else ''}{total:,.1f} MiB")
    for entry in left:
        print(f"in use, left there: {entry.name}")


if __name__ == "__main__":
    sys.exit(main())
