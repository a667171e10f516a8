"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Measures:
    """The numbers of one server."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        """`waiting`: how many images wait for the network now."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter("alexnet_requests", "Requests answered", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "alexnet_request_seconds",
            "From a request's head to its answer",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._images = Counter("alexnet_images", "Images by what became of them", ("status",), registry=self.registry)
        self._batches = Histogram(
            "alexnet_batch_images",
            "Images that the network took together",
            ("work",),
            buckets=BATCHES,
            registry=self.registry,
        )
        self._network = Counter("alexnet_network_seconds", "What the network worked", ("work",), registry=self.registry)
        gauge = Gauge("alexnet_waiting_images", "Images that wait for the network", registry=self.registry)
        gauge.set_function(waiting)

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request was answered; `path` is that of the route, so that there are few."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def image(self, status: int) -> None:
        """An image was answered, or refused."""
        self._images.labels(str(status)).inc()

    def batch(self, work: object, images: int, seconds: float) -> None:
        """The network did a batch."""
        name = type(work).__name__.lower()
        self._batches.labels(name).observe(images)
        self._network.labels(name).inc(seconds)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
