"""Content of the page besides the images of requests: the network, its units, the dataset and the mistakes."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Generator
from concurrent.futures import CancelledError, Future
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.predictor import Member
from alexnet.network.model import AlexNet, towers_of
from alexnet.prediction.ensemble import EnsembleClassifier
from alexnet.report.image_figures import most_confident_mistakes
from alexnet.report.sentences import class_list
from alexnet.runs.decision import describe_decision
from alexnet.runs.run import CROSS_VALIDATION, Run
from alexnet.runtime.errors import AlexNetError
from alexnet.search import Index, open_index
from alexnet.serve import render
from alexnet.serve.activation_maximization import optimized_image
from alexnet.serve.excitation import BATCH_SIZE, DatasetScan, receptive_field
from alexnet.serve.limits import RequestError
from alexnet.serve.network_drawing import Block, blocks_of, drawing
from alexnet.serve.service import Service
from alexnet.serve.worker import Worker

CACHED_IMAGES = 500
"""Optimized images that are kept, about 10 kB each."""
MAX_OPTIMIZING = 8
"""Optimized images that may be in progress at once."""
MAX_LABELS = 1000
"""Class names sent to the page."""


class Explorer:
    """Inspection of one run and its dataset.

    Parameters
    ----------
    run
        The run.
    service
        The service that owns the network.
    dataset
        The prepared dataset, or None where it is not available.
    data_unavailable
        Why there is no dataset, as a sentence; empty where there is one.
    served
        The folder that is served, if it is not the run but an ensemble with the run as its first network.
    """

    def __init__(
        self,
        run: Run,
        service: Service,
        dataset: PreparedDataset | None,
        data_unavailable: str = "",
        served: Path | None = None,
    ) -> None:
        self.served = served or run.path
        self.run, self.service, self.dataset, self.data_unavailable = run, service, dataset, data_unavailable
        classifier = service.classifier
        self.title = class_list(classifier.config.classes)
        self.side = classifier.preprocess.input_size or classifier.preprocess.crop_size
        self.blocks = {block.name: block for block in blocks_of(classifier.network, self.side)}
        self.drawing = drawing(classifier.network, self.side)
        self.kernels = render.kernels(classifier.network)
        self.scan = DatasetScan(classifier, dataset, list(self.blocks)) if dataset is not None else None
        self._splits = {name: dataset.split(name) for name in dataset.splits} if dataset is not None else {}
        self._optimized: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._index: Index | None = None
        self._index_thread: threading.Thread | None = None
        self._index_status = "the training images are being indexed; try again later"

    def start(self) -> None:
        """Start the scan of the dataset and the index of the training images, in the background."""
        if self.scan is not None:
            self.service.worker.submit_background(self.scan.steps())
        if "train" in self._splits:
            self._index_thread = threading.Thread(target=self._open_index, name="index", daemon=True)
            self._index_thread.start()

    def close(self) -> None:
        """Wait for the thread that `start` started; it ends once the service is closed."""
        if self._index_thread is not None:
            self._index_thread.join()

    def network(self) -> dict[str, Any]:
        """Describe the run, its network and its dataset, as JSON."""
        classifier = self.service.classifier
        config, network, rule = self.run.config, classifier.network, classifier.rule
        return {
            "run": self.served.absolute().name,
            "members": len(classifier.members) if isinstance(classifier, EnsembleClassifier) else 1,
            "cross_validation": (self.served / CROSS_VALIDATION).is_file(),
            "shown_network": self.run.path.absolute().name,
            "title": self.title,
            "recipe": config.recipe.name,
            "variant": config.recipe.variant,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "classes": len(config.classes),
            "decision_rule": [] if rule is None else describe_decision(rule),
            "labels": classifier.labels[:MAX_LABELS],
            "towers": towers_of(network),
            "layers": [{**asdict(block), "shape": list(block.shape)} for block in self.blocks.values()],
            "output_layer": network.output_layer,
            "feature_layer": network.feature_layer,
            "features": self.blocks[network.feature_layer].shape[0],
            "kernel": self.blocks[network.first_convolution].kernel,
            "limits": {"bytes": self.service.limits.bytes, "pixels": self.service.limits.pixels},
            "data": self._data_status(),
            "data_unavailable": self.data_unavailable,
        }

    def _data_status(self) -> dict[str, Any] | None:
        scan = self.scan
        if scan is None:
            return None
        return {
            "splits": {name: len(split) for name, split in self._splits.items()},
            "evaluated_split": scan.evaluated_split.name if scan.evaluated_split is not None else None,
            "scanned": [scan.scanned, len(scan.positions(scan.train))],
            "evaluated": [scan.evaluated, len(scan.positions(scan.evaluated_split))],
            "index_ready": self._index is not None,
        }

    def unit(self, layer: str, unit: int) -> dict[str, Any]:
        """Return the images with the largest activations of a unit; raises `RequestError` 404 for an unknown unit."""
        block = self._block(layer, unit)
        result: dict[str, Any] = {"layer": layer, "unit": unit, "tower": unit * block.towers // block.shape[0] + 1}
        result |= {"scanned": 0, "total": 0, "images": []}
        scan = self.scan
        if scan is None or scan.train is None:
            return result
        result |= {"scanned": scan.scanned, "total": len(scan.positions(scan.train))}
        top = scan.top_activations.get(layer)
        if top is None:
            return result
        for value, position, place in zip(
            *(values[unit].tolist() for values in (top.values, top.positions, top.places)), strict=True
        ):
            if position >= 0:
                image = {**self._stored("train", position), "value": float(f"{value:.4g}")}
                box = self._box(layer, place)
                if box is not None:
                    image["box"] = box
                result["images"].append(image)
        return result

    def optimized(self, layer: str, unit: int) -> Future[bytes]:
        """Return the future of a JPEG that maximizes the activation of a unit; raises `RequestError` 404 and 429."""
        self._block(layer, unit)
        known = self._optimized.get((layer, unit))
        if known is not None and not (known.done() and known.exception()):
            self._optimized.move_to_end((layer, unit))
            return known
        if sum(not future.done() for future in self._optimized.values()) >= MAX_OPTIMIZING:
            raise RequestError(429, f"the server is busy: {MAX_OPTIMIZING} images are being optimized; try again")
        future = self.service.worker.submit_background(self._optimize(layer, unit), urgent=True)
        self._optimized[layer, unit] = future
        if len(self._optimized) > CACHED_IMAGES:
            self._optimized.popitem(last=False)
        return future

    def mistakes(self, count: int) -> dict[str, Any]:
        """Return the most confident mistakes so far; raises `RequestError` 404 without data."""
        scan = self.scan
        if scan is None or scan.evaluated_split is None:
            raise RequestError(404, self.data_unavailable or "the dataset has no images in test or val")
        split, positions = scan.evaluated_split, scan.positions(scan.evaluated_split)
        result: dict[str, Any] = {
            "split": split.name,
            "evaluated": scan.evaluated,
            "total": len(positions),
            "errors": 0,
            "mistakes": [],
        }
        predictions = scan.predictions
        if predictions is None:
            return result
        labels = self.service.classifier.labels
        result["errors"] = int((~predictions.correct).sum())
        for row in most_confident_mistakes(predictions, count):
            ranked = zip(predictions.ranked[row], predictions.ranked_probabilities[row], strict=True)
            top = [{"label": labels[c], "probability": float(share)} for c, share in ranked]
            result["mistakes"].append({**self._stored(split.name, int(positions[row])), "top": top})
        return result

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Return some held-out images of all classes; none without data."""
        if self.scan is None or self.scan.evaluated_split is None:
            return []
        split = self.scan.evaluated_split
        by_class = np.argsort(split.labels, kind="stable")
        chosen = np.linspace(0, len(by_class) - 1, min(count, len(by_class))).round().astype(np.int64)
        return [self._stored(split.name, int(position)) for position in by_class[chosen]]

    def image(self, split: str, position: int) -> bytes:
        """Return a prepared image as a JPEG; raises `RequestError` 404 where there is none."""
        images = self._splits.get(split)
        if images is None or position >= len(images):
            raise RequestError(404, f"no image {position} in split {split!r}")
        return render.jpeg(images[position][0])

    def index(self) -> Index:
        """Return the index of the training images; raises `RequestError` 404 without data, 503 until it is ready."""
        if "train" not in self._splits:
            raise RequestError(404, self.data_unavailable or "the dataset has no train split")
        if self._index is None:
            raise RequestError(503, self._index_status)
        return self._index

    def nearest(self, index: Index, features: np.ndarray, k: int) -> list[dict[str, Any]]:
        """Return the `k` training images nearest to the activations (units,) of the feature layer for one image."""
        try:
            distances, positions = index.nearest(features[None], k)
        except AlexNetError as error:
            raise RequestError(503, f"the nearest images are not available: {error}") from None
        return [
            {**self._stored("train", int(position)), "distance": float(distance)}
            for distance, position in zip(distances[0], positions[0], strict=True)
        ]

    def _block(self, layer: str, unit: int) -> Block:
        block = self.blocks.get(layer)
        if block is None or unit >= block.shape[0]:
            raise RequestError(404, f"no unit {unit} in layer {layer!r}; the layers are: {', '.join(self.blocks)}")
        return block

    def _optimize(self, layer: str, unit: int) -> Generator[None, None, bytes]:
        return render.jpeg((yield from optimized_image(self.service.classifier, layer, unit)))

    def _stored(self, split: str, position: int) -> dict[str, Any]:
        images = self._splits[split]
        return {
            "split": split,
            "position": position,
            "label": self.service.classifier.labels[images.labels[position]],
            "name": PurePath(images.paths(position)).name,
            "url": f"/v1/data/{split}/{position}",
        }

    def _box(self, layer: str, place: int) -> list[float] | None:
        """The receptive field of a place in the prepared image: left, top, width, height as shares of its side."""
        network, preprocess = self.service.classifier.network, self.service.classifier.preprocess
        field = receptive_field(network, layer)
        if field is None:
            return None
        columns = self.blocks[layer].shape[-1]
        scale, margin = preprocess.crop_size / self.side, (preprocess.size - preprocess.crop_size) / 2
        sides = []
        for number in (place % columns, place // columns):
            first = max(0, field.start + number * field.step)
            last = min(self.side, field.start + number * field.step + field.size)
            sides.append(((first * scale + margin) / preprocess.size, (last - first) * scale / preprocess.size))
        (left, width), (top, height) = sides
        return [round(share, 4) for share in (left, top, width, height)]

    def _open_index(self) -> None:
        classifier = self.service.classifier
        network = _BackgroundNetwork(classifier.network, self.service.worker)
        member = Member(self.run, network, classifier.preprocess)  # type: ignore[arg-type]
        assert self.dataset is not None
        try:
            self._index = open_index(member, self.dataset, split="train")
        except CancelledError:
            return
        except AlexNetError as error:
            self._index_status = f"the nearest images are not available: {error}"
            print(f"alexnet: {self._index_status}", file=sys.stderr)
        except Exception as error:
            self._index_status = (
                f"the nearest images are not available: internal error ({type(error).__name__}); see the server's log"
            )
            raise


class _BackgroundNetwork:
    """The network for another thread: the worker computes its features in small steps while no request waits."""

    def __init__(self, network: AlexNet, worker: Worker) -> None:
        self.network, self.worker = network, worker
        self.state_dict, self.feature_layer = network.state_dict, network.feature_layer

    def features(self, x: Tensor, layer: str) -> Tensor:
        return self.worker.submit_background(self._steps(x, layer)).result()

    def _steps(self, x: Tensor, layer: str) -> Generator[None, None, Tensor]:
        parts = []
        for part in x.split(BATCH_SIZE):
            with torch.inference_mode():
                parts.append(self.network.features(part, layer))
            yield
        return torch.cat(parts)
