"""What surrounds every request: its line in the log and its place in the metrics."""

import sys
import time

from keras_dogs.serving.metrics import Metrics
from keras_dogs.system import terminal

_ROUTES = ("/predict", "/explain", "/metadata", "/metrics", "/healthz", "/readyz", "/")
_QUIET = ("/metrics", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")  # asked every few seconds


class OneLine:
    """Wraps an ASGI application: a line a request on standard error, and counts.

    Args:
        app: the ASGI application.
        metrics: `Metrics`.
    """

    def __init__(self, app, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope, receive, send):
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), None

        async def watched(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            self._note(scope, status or 499, time.perf_counter() - began)

    def _note(self, scope, status: int, seconds: float) -> None:
        path = scope["path"]
        route = path if path in _ROUTES else "/v2" if path.startswith("/v2") else "other"
        self.metrics.count_request(route, status, seconds)
        if path in _QUIET and status < 400:
            return
        client = (scope.get("client") or ("-",))[0]
        line = terminal.one_line(f"{client} {scope['method']} {path}", 200)
        print(f"{line} {status} {1000 * seconds:.0f} ms", file=sys.stderr, flush=True)
