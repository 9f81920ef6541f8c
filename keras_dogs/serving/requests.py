"""What surrounds every request: its line in the log, its place in the metrics, and an answer whatever fails."""

import json
import sys
import time
import traceback

from keras_dogs.serving.metrics import Metrics
from keras_dogs.system import terminal

_ROUTES = ("/predict", "/explain", "/metadata", "/metrics", "/healthz", "/readyz", "/")
_QUIET = ("/metrics", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")  # asked every few seconds


class OneLine:
    """Wraps an ASGI application: a line a request on standard error, counts, and JSON where it fails.

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
        except Exception as error:
            if type(error).__name__ == "ClientDisconnect":
                status = 499
            elif status is None:  # a fault of ours: whoever asked gets an answer, whoever runs this the place
                traceback.print_exc()
                await _fail(watched)
            else:
                raise
        finally:
            self._note(scope, status or 499, time.perf_counter() - began)

    def _note(self, scope, status: int, seconds: float) -> None:
        path = scope["path"]
        route = path if path in _ROUTES else "/v2" if path.startswith("/v2") else "other"
        self.metrics.count_request(route, status, seconds)
        if path in _QUIET and status < 400:
            return
        client = (scope.get("client") or ("-",))[0]
        line = terminal.one_line(f"{scope['method']} {path}", 200)
        print(f"{client} {line} {status} {1000 * seconds:.0f} ms", file=sys.stderr, flush=True)


async def _fail(send) -> None:
    body = json.dumps({"error": "the server failed; its log says how"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
