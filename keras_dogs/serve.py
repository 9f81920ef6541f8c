"""Answer pictures over HTTP: `python -m keras_dogs.serve RUN_OR_EXPORT...`."""

import importlib.util
import sys

from keras_dogs import commands
from keras_dogs.errors import UserError
from keras_dogs.errors import install_line
from keras_dogs.serving.config import ServeConfig

_NEEDED = ("starlette", "uvicorn", "python_multipart", "prometheus_client")


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("serve", ServeConfig, _serve)


def _serve(config: ServeConfig) -> int:
    for module in _NEEDED:
        if not importlib.util.find_spec(module):
            raise UserError(f"serve: needs {module}, which is not installed: {install_line('serve')}")
    from keras_dogs.serving import running
    from keras_dogs.serving import served

    with running.listen(config) as listener:  # before a model is loaded in vain
        return running.run(config, served.open_all(config.runs), listener)


if __name__ == "__main__":
    sys.exit(main())
