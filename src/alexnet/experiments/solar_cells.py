"""The solar cells of the demo: 2,624 electroluminescence images, each with a defect probability.

The images are those of the package `elpv-dataset` (Deitsch et al., CC BY-NC-SA 4.0), which the extra `alexnet[demo]`
installs. They are not part of this package.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_csv

TEST_CELLS = 656  # a quarter, as in Deitsch et al. 2019
SPLIT_SEED = 0
CLASSES = ("defective", "functional")

# Accuracies in percent, published for a split of 75% / 25%: Deitsch et al., Solar Energy 185 (2019), 455-468.
PUBLISHED = {
    "VGG-19, pretrained on ImageNet and fine-tuned (Deitsch et al. 2019)": 88.42,
    "SVM on hand-crafted features (Deitsch et al. 2019)": 82.44,
}

FROM_SCRATCH = 85.30
"""Accuracy in percent without pretrained weights: mean of five seeds, ten views (docs/results/solar.json)."""


def write_source(path: Path, *, confidences: bool = False) -> Path:
    """Write a CSV of path, label and split of every cell, a source for `prepare`.

    A cell is defective if its defect probability exceeds 0.5. The test split of 656 cells is stratified by class and
    type (mono- or polycrystalline) with a fixed seed.

    Parameters
    ----------
    path : Path
        The CSV file to write.
    confidences : bool
        Add the column ``confidence`` of the label, a soft label, from the raters' defect probability (0, 1/3, 2/3, 1).

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    AlexNetError
        If the package with the images is not installed.
    """
    from sklearn.model_selection import train_test_split

    folder = images_folder()
    rows = [line.split() for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    labels = [CLASSES[0] if float(probability) > 0.5 else CLASSES[1] for _, probability, _ in rows]
    kinds = [f"{label} {kind}" for label, (_, _, kind) in zip(labels, rows, strict=True)]
    _, test = train_test_split(range(len(rows)), test_size=TEST_CELLS, random_state=SPLIT_SEED, stratify=kinds)
    test_indices = set(test)
    table: list[list[object]] = [["path", "label", "split", *(["confidence"] if confidences else [])]]
    for number, ((name, probability, _), label) in enumerate(zip(rows, labels, strict=True)):
        confidence = float(probability) if label == CLASSES[0] else 1 - float(probability)
        row = [folder / name, label, "test" if number in test_indices else "train"]
        table.append([*row, *([f"{confidence:.6g}"] if confidences else [])])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, table)
    return path


def images_folder() -> Path:
    """The folder of the installed images; raises `AlexNetError` without them."""
    found = find_spec("elpv_dataset")
    if found is None or found.origin is None:
        raise AlexNetError("the solar cell images are not installed: pip install 'alexnet[demo]' (elpv-dataset, 90 MB)")
    return Path(found.origin).parent / "data"
