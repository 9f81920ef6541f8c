"""What Prometheus asks for: requests, pictures, batches, and how long they took."""

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge
from prometheus_client import Histogram
from prometheus_client import generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counts of one server."""

    def __init__(self):
        self._registry = CollectorRegistry()
        kept = {"namespace": "keras_dogs", "registry": self._registry}
        self._requests = Counter("requests", "Requests that were answered.", ("route", "status"), **kept)
        self._seconds = Histogram("request_seconds", "Time to the answer.", ("route",), buckets=_SECONDS, **kept)
        self._sizes = Histogram(
            "batch_size", "Pictures that a model answered at once.", ("model",), buckets=_SIZES, **kept
        )
        self._working = Counter("model_seconds", "Time that a model worked.", ("model",), **kept)
        self._in_hand = Gauge("pictures_in_hand", "Pictures that wait or are answered.", ("model",), **kept)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, model: str, size: int, seconds: float) -> None:
        """Counts a batch."""
        self._sizes.labels(model).observe(size)
        self._working.labels(model).inc(seconds)

    def to_text(self, in_hand: dict[str, int]) -> bytes:
        """Returns the text that Prometheus reads."""
        for model, count in in_hand.items():
            self._in_hand.labels(model).set(count)
        return generate_latest(self._registry)
