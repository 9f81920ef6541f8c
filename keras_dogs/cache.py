"""Show what is kept for later runs, or remove it: `python -m keras_dogs.cache [--empty]`."""

import sys
import time

from keras_dogs import caches
from keras_dogs import commands
from keras_dogs.config import CacheConfig


def main() -> int:
    """The command."""
    return commands.run("cache", CacheConfig, _cache)


def _cache(config: CacheConfig) -> None:
    caches.use(config.cache_dir)
    entries = caches.entries(config.older_than)
    for entry in entries:
        used = time.strftime("%Y-%m-%d", time.localtime(entry.used))
        print(f"{entry.kind:<10}{entry.size / 2**20:>10,.1f} MiB  last used {used}  {entry.name}")
    total = sum(entry.size for entry in entries) / 2**20
    if config.empty:
        left = caches.remove(entries)
        print(f"{caches.root()}: removed {total:,.1f} MiB")
        for name in left:
            print(f"in use, left there: {name}")
    else:
        print(f"{caches.root()}: {total:,.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
