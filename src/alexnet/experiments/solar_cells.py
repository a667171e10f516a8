"""The solar cells of the demo: 2,624 electroluminescence images, each with a probability of being defective.

They come with the `elpv-dataset` package (Deitsch et al., CC BY-NC-SA 4.0), which the extra `alexnet[demo]` installs;
nothing of it is part of this package.
"""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec
from pathlib import Path

from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

TEST_CELLS = 656  # a quarter, as in Deitsch et al. 2019
SPLIT_SEED = 0
CLASSES = ("defective", "functional")

# Accuracies in percent, published for a split of 75% / 25%: Deitsch et al., Solar Energy 185 (2019), 455-468.
PUBLISHED = {
    "VGG-19, pre-trained on ImageNet and fine-tuned (Deitsch et al. 2019)": 88.42,
    "SVM on hand-crafted features (Deitsch et al. 2019)": 82.44,
}

FROM_SCRATCH = 85.30
"""Accuracy in percent without the starter: mean of five seeds, ten views (docs/results/solar.json)."""


def write_source(path: Path) -> Path:
    """Write the CSV that `prepare` reads: path, label and split of every cell.

    A cell is defective when its probability exceeds 0.5.

    656 cells are kept for the test, drawn with a fixed seed so that every class and type (mono- and polycrystalline)
    has its share. Raises `AlexNetError` when the package with the images is not installed.
    """
    from sklearn.model_selection import train_test_split

    folder = _folder()
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
    labels = [CLASSES[0] if float(probability) > 0.5 else CLASSES[1] for _, probability, _ in rows]
    kinds = [f"{label} {kind}" for label, (_, _, kind) in zip(labels, rows, strict=True)]
    _, test = train_test_split(range(len(rows)), test_size=TEST_CELLS, random_state=SPLIT_SEED, stratify=kinds)
    kept = set(test)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    for number, ((name, _, _), label) in enumerate(zip(rows, labels, strict=True)):
        writer.writerow([folder / name, label, "test" if number in kept else "train"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.getvalue().encode())
    return path


def _folder() -> Path:
    found = find_spec("elpv_dataset")
    if found is None or found.origin is None:
        raise AlexNetError("the solar cells are not installed: pip install 'alexnet[demo]' (elpv-dataset, 90 MB)")
    return Path(found.origin).parent / "data"
