"""What there is to look at besides the images of requests: the network, its units, the data and the mistakes."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Generator
from concurrent.futures import CancelledError, Future
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.ensemble import Member
from alexnet.network.model import AlexNet, towers_of
from alexnet.report.image_figures import most_confident_mistakes
from alexnet.report.sentences import class_list
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError
from alexnet.search import Index, open_index
from alexnet.serve import render
from alexnet.serve.activation_maximization import optimized
from alexnet.serve.excitation import BATCH_SIZE, Survey, field_of
from alexnet.serve.limits import Refusal
from alexnet.serve.network_drawing import blocks_of, drawing
from alexnet.serve.service import Service
from alexnet.serve.worker import Worker

KEPT_IMAGES = 500
"""Optimized images that are kept, some 10 kB each."""
AT_WORK = 8
"""Of them, how many may be asked for at once."""


class Exhibits:
    """Of one run, and of its data where it is there; `why_no_data` says why not, in a sentence."""

    def __init__(self, run: Run, service: Service, dataset: PreparedDataset | None, why_no_data: str = "") -> None:
        self.run, self.service, self.dataset, self.why_no_data = run, service, dataset, why_no_data
        network = service.classifier.network
        self.title = class_list(service.classifier.config.classes)
        self.side = service.classifier.preprocess.input_size or service.classifier.preprocess.crop_size
        self.blocks = {block.name: block for block in blocks_of(network, self.side)}
        self.drawing = drawing(network, self.side)
        self.kernels = render.kernels(network)
        self.survey = Survey(service.classifier, dataset, list(self.blocks)) if dataset is not None else None
        self._splits = {name: dataset.split(name) for name in dataset.splits} if dataset is not None else {}
        self._optimized: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._index: Index | None = None
        self._opening: threading.Thread | None = None
        self._why_no_index = "the training images are being read: try again in a while"

    def start(self) -> None:
        """Begin with what takes a while, without waiting for it."""
        if self.survey is not None:
            self.service.worker.slowly(self.survey.steps())
        if "train" in self._splits:
            self._opening = threading.Thread(target=self._open_index, name="index", daemon=True)
            self._opening.start()

    def close(self) -> None:
        """Wait for the thread that `start` began; it ends once the service is closed."""
        if self._opening is not None:
            self._opening.join()

    def network(self) -> dict[str, Any]:
        """As JSON has it."""
        config, network = self.run.config, self.service.classifier.network
        survey = self.survey
        return {
            "run": self.run.path.absolute().name,
            "title": self.title,
            "recipe": config.recipe.name,
            "variant": config.recipe.variant,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "classes": len(config.classes),
            "labels": self.service.classifier.labels[:1000],
            "towers": towers_of(network),
            "layers": [{**asdict(block), "shape": list(block.shape)} for block in self.blocks.values()],
            "kernel": self.blocks[next(iter(self.blocks))].kernel,
            "limits": {"bytes": self.service.limits.bytes, "pixels": self.service.limits.pixels},
            "data": None
            if survey is None
            else {
                "splits": {name: len(split) for name, split in self._splits.items()},
                "measured": survey.measured.name if survey.measured is not None else None,
                "looked_at": [survey.looked_at, len(survey.wanted(survey.train))],
                "answered": [survey.answered, len(survey.wanted(survey.measured))],
                "neighbors": self._index is not None,
            },
            "missing": self.why_no_data,
        }

    def unit(self, layer: str, unit: int) -> dict[str, Any]:
        """What excites a unit most. Raises `Refusal` 404."""
        block = self._block(layer, unit)
        towers = block.towers
        result: dict[str, Any] = {"layer": layer, "unit": unit, "tower": unit * towers // block.shape[0] + 1}
        result |= {"looked_at": 0, "wanted": 0, "images": []}
        survey = self.survey
        if survey is None or survey.train is None:
            return result
        result |= {"looked_at": survey.looked_at, "wanted": len(survey.wanted(survey.train))}
        excited = survey.excited.get(layer)
        if excited is None:
            return result
        field = field_of(self.service.classifier.network, layer)
        rows = zip(
            *(values[unit].tolist() for values in (excited.values, excited.positions, excited.places)), strict=True
        )
        for value, position, place in rows:
            if position >= 0:
                image = {**self._stored("train", position), "value": float(f"{value:.4g}")}
                if field is not None:
                    image["box"] = self._box(layer, place)
                result["images"].append(image)
        return result

    def optimized(self, layer: str, unit: int) -> Future[bytes]:
        """A JPEG of an image made to excite a unit. Raises `Refusal` 404 and 429."""
        self._block(layer, unit)
        known = self._optimized.get((layer, unit))
        if known is not None and not (known.done() and known.exception()):
            self._optimized.move_to_end((layer, unit))
            return known
        if sum(not future.done() for future in self._optimized.values()) >= AT_WORK:
            raise Refusal(429, f"busy: {AT_WORK} such images are being made; try again")
        future = self.service.worker.slowly(self._as_jpeg(layer, unit), first=True)
        self._optimized[layer, unit] = future
        if len(self._optimized) > KEPT_IMAGES:
            self._optimized.popitem(last=False)
        return future

    def mistakes(self, count: int) -> dict[str, Any]:
        """The surest mistakes so far. Raises `Refusal` 404 without data."""
        survey = self.survey
        if survey is None or survey.measured is None:
            raise Refusal(404, self.why_no_data or "the data has no images in test or val")
        result: dict[str, Any] = {
            "split": survey.measured.name,
            "answered": survey.answered,
            "wanted": len(survey.wanted(survey.measured)),
            "wrong": 0,
            "mistakes": [],
        }
        said = survey.predictions
        if said is None:
            return result
        labels, positions = self.service.classifier.labels, survey.wanted(survey.measured)
        result["wrong"] = int((said.ranked[:, 0] != said.labels).sum())
        for row in most_confident_mistakes(said, count):
            answers = zip(said.ranked[row], said.ranked_probabilities[row], strict=True)
            top = [{"label": labels[c], "probability": float(share)} for c, share in answers]
            result["mistakes"].append({**self._stored(survey.measured.name, int(positions[row])), "top": top})
        return result

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Images to try, of all classes, that the network has not learned from; none without data."""
        if self.survey is None or self.survey.measured is None:
            return []
        by_class = np.argsort(self.survey.measured.labels, kind="stable")
        places = np.linspace(0, len(by_class) - 1, min(count, len(by_class))).round().astype(np.int64)
        return [self._stored(self.survey.measured.name, int(position)) for position in by_class[places]]

    def image(self, split: str, position: int) -> bytes:
        """A prepared image as a JPEG. Raises `Refusal` 404."""
        found = self._splits.get(split)
        if found is None or position >= len(found):
            raise Refusal(404, f"no image {position} in a split {split!r}")
        return render.jpeg(found[position][0])

    def index(self) -> Index:
        """The index of the training images. Raises `Refusal`: 404 without data, 503 until it is there."""
        if "train" not in self._splits:
            raise Refusal(404, self.why_no_data or "the data has no train split")
        if self._index is None:
            raise Refusal(503, self._why_no_index)
        return self._index

    def nearest(self, index: Index, features: np.ndarray, k: int) -> list[dict[str, Any]]:
        """The nearest training images to the fc7 (4096,) of one."""
        try:
            distances, positions = index.nearest(features[None], k)
        except AlexNetError as error:
            raise Refusal(503, f"the nearest images can't be found: {error}") from None
        return [
            {**self._stored("train", int(position)), "distance": float(distance)}
            for distance, position in zip(distances[0], positions[0], strict=True)
        ]

    def _block(self, layer: str, unit: int) -> Any:
        block = self.blocks.get(layer)
        if block is None or unit >= block.shape[0]:
            raise Refusal(404, f"no unit {unit} in a layer {layer!r}; there are: {', '.join(self.blocks)}")
        return block

    def _as_jpeg(self, layer: str, unit: int) -> Generator[None, None, bytes]:
        return render.jpeg((yield from optimized(self.service.classifier, layer, unit)))

    def _stored(self, split: str, position: int) -> dict[str, Any]:
        found = self._splits[split]
        return {
            "split": split,
            "position": position,
            "label": self.service.classifier.labels[found.labels[position]],
            "name": PurePath(found.paths(position)).name,
            "address": f"/v1/data/{split}/{position}",
        }

    def _box(self, layer: str, place: int) -> list[float]:
        """What a place of a map reads of the prepared image: left, top, width, height as shares of its side."""
        network, preprocess = self.service.classifier.network, self.service.classifier.preprocess
        field = field_of(network, layer)
        assert field is not None
        columns = self.blocks[layer].shape[-1]
        read = self.side
        scale, edge = preprocess.crop_size / read, (preprocess.size - preprocess.crop_size) / 2
        sides = []
        for number in (place % columns, place // columns):
            first = max(0, field.start + number * field.step)
            last = min(read, field.start + number * field.step + field.size)
            sides.append(((first * scale + edge) / preprocess.size, (last - first) * scale / preprocess.size))
        (left, width), (top, height) = sides
        return [round(share, 4) for share in (left, top, width, height)]

    def _open_index(self) -> None:
        classifier = self.service.classifier
        lent = _Lent(classifier.network, self.service.worker)
        member = Member(self.run, lent, classifier.preprocess)  # type: ignore[arg-type]
        assert self.dataset is not None
        try:
            self._index = open_index(member, self.dataset, split="train")
        except CancelledError:
            return
        except AlexNetError as error:
            self._why_no_index = f"the nearest images can't be found: {error}"
            print(f"alexnet: {self._why_no_index}", file=sys.stderr)
        except Exception as error:
            fault = f"a fault of the server ({type(error).__name__}): its log has more"
            self._why_no_index = f"the nearest images can't be found: {fault}"
            raise


class _Lent:
    """The network for another thread: its work is done by the worker, a little at a time, while no request waits."""

    def __init__(self, network: AlexNet, worker: Worker) -> None:
        self.network, self.worker = network, worker
        self.state_dict = network.state_dict

    def features(self, x: Tensor, layer: str) -> Tensor:
        return self.worker.slowly(self._steps(x, layer)).result()

    def _steps(self, x: Tensor, layer: str) -> Generator[None, None, Tensor]:
        parts = []
        for part in x.split(BATCH_SIZE):
            with torch.inference_mode():
                parts.append(self.network.features(part, layer))
            yield
        return torch.cat(parts)
