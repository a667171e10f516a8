"""A classifier without a network, for the tests of sorting."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alexnet.prediction.classifier import Classifier, Prediction, UnreadableImage

CLASSES = ["lying", "standing"]


class ByContent(Classifier):
    """The class of a file is its first byte: l or s; k is unsure, x unknown, and anything else unreadable.

    The probability is its second byte, in tenths.
    """

    classes = labels = property(lambda _: CLASSES)

    def __init__(self) -> None:
        self.partly, self.rule = [], None

    def stream(self, images: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        for path in images:
            content = Path(path).read_bytes()
            decision = {b"k": "unsure", b"x": "unknown"}.get(content[:1], "class")
            name = {b"l": "lying", b"s": "standing", b"k": "lying", b"x": "standing"}.get(content[:1])
            if name is None or not content[1:2].isdigit():
                yield UnreadableImage(str(path), "damaged")
            else:
                probability = int(content[1:2]) / 10
                yield Prediction(str(path), name, probability, [(name, probability)], decision)
