"""Install a wheel alone in a fresh environment and run the main job with it: `python scripts/try_wheel.py DIST`."""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path


def main(dist: Path) -> None:
    """Ends with an error where a command of the installed package does."""
    (wheel,), (sources,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    print(
        f"{wheel.name} {wheel.stat().st_size / 2**20:.1f} MiB, {sources.name} {sources.stat().st_size / 2**20:.1f} MiB"
    )
    with tempfile.TemporaryDirectory(prefix="keras_dogs_wheel_") as folder:
        venv.create(f"{folder}/fresh", with_pip=True)
        programs = Path(folder) / "fresh" / ("Scripts" if os.name == "nt" else "bin")
        run([programs / "python", "-m", "pip", "install", "-q", f"{wheel}[jax]"], folder)
        run([programs / "keras-dogs"], folder)
        run([programs / "keras-dogs", "train", "--epochs", "1", "--output", "run"], folder)
        run([programs / "keras-dogs", "evaluate", "run", "--saved", "--output", "page"], folder)


def run(command: list, folder: str) -> None:
    """Runs a command in a folder that has nothing of the repository."""
    print("+", *command, flush=True)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "KERAS_DOGS_CACHE": f"{folder}/cache"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(list(map(str, command)), cwd=folder, check=True, env=environment)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
