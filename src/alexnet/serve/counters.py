"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """The Prometheus metrics of one server."""

    def __init__(self, queue_length: Callable[[], int]) -> None:
        """Create the metrics; `queue_length` returns the number of images that wait for the network."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter("alexnet_requests", "Requests answered", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "alexnet_request_seconds",
            "Time from the head of a request to its answer",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._images = Counter("alexnet_images", "Images processed, by status", ("status",), registry=self.registry)
        self._batches = Histogram(
            "alexnet_batch_images",
            "Images per batch of the network",
            ("task",),
            buckets=BATCH_SIZES,
            registry=self.registry,
        )
        self._network = Counter(
            "alexnet_network_seconds", "Time that the network computed", ("task",), registry=self.registry
        )
        gauge = Gauge("alexnet_queued_images", "Images that wait for the network", registry=self.registry)
        gauge.set_function(queue_length)

    def record_request(self, path: str, status: int, seconds: float) -> None:
        """Record an answered request; `path` is the path of the route, which bounds the number of labels."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def record_image(self, status: int) -> None:
        """Record an image, processed (200) or rejected."""
        self._images.labels(str(status)).inc()

    def record_batch(self, task: object, images: int, seconds: float) -> None:
        """Record a batch of the network."""
        name = type(task).__name__.lower()
        self._batches.labels(name).observe(images)
        self._network.labels(name).inc(seconds)

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)
