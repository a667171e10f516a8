"""ILSVRC's own files, in small: the tar files and the devkit as its organizers lay them out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from file_trees import Files, tar_bytes
from PIL import Image
from scipy.io import savemat


def write_tar(path: Path, files: Files, mode: str = "w") -> Path:
    path.write_bytes(tar_bytes(files, mode))
    return path


def meta_mat(year: int, synsets: Mapping[str, str]) -> bytes:
    """Return meta.mat of the synsets in the order of their ILSVRC ids, followed by an inner node without images."""
    kinds = [(f"ILSVRC{year}_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = np.empty((len(synsets) + 1, 1), dtype=kinds)
    for number, (wnid, description) in enumerate({**synsets, "n99999999": "whole"}.items()):
        rows[number, 0] = (number + 1, wnid, description, len(synsets) if number == len(synsets) else 0)
    file = io.BytesIO()
    savemat(file, {"synsets": rows})
    return file.getvalue()


def ilsvrc(root: Path, year: int, classes: int, validation: int, test: int = 0) -> list[str]:
    """A folder with the files of 2012 or 2010: a training image of each class, and `validation` and `test` images.

    Returns the synset ids of the validation images.
    """
    rng = np.random.default_rng(year)
    # Ids in another order than the names, as in the real one.
    wnids = [f"n{number:08}" for number in rng.permutation(np.arange(1_440_764, 1_440_764 + classes))]
    train = {f"{wnid}.tar": tar_bytes({f"{wnid}_{number}.JPEG": _jpeg(rng)}) for number, wnid in enumerate(wnids)}
    truth = rng.integers(1, classes + 1, validation)
    kit = {
        "data/meta.mat": meta_mat(year, {wnid: f"thing {wnid[1:]}" for wnid in wnids}),
        f"data/ILSVRC{year}_validation_ground_truth.txt": "".join(f"{number}\n" for number in truth).encode(),
    }
    name, inside, kit_name, around = {
        2012: ("img", "", "devkit_t12", "ILSVRC2012_devkit_t12/"),
        2010: ("images", "val/", "devkit-1.0", "devkit-1.0/"),
    }[year]
    root.mkdir(parents=True)
    write_tar(root / f"ILSVRC{year}_{name}_train.tar", train)
    images = {f"{inside}ILSVRC{year}_val_{number:08}.JPEG": _jpeg(rng) for number in range(1, validation + 1)}
    write_tar(root / f"ILSVRC{year}_{name}_val.tar", images)
    write_tar(root / f"ILSVRC{year}_{kit_name}.tar.gz", {around + name: kit[name] for name in kit}, "w:gz")
    if test:
        images = {f"test/ILSVRC{year}_test_{number:08}.JPEG": _jpeg(rng) for number in range(1, test + 1)}
        write_tar(root / f"ILSVRC{year}_{name}_test.tar", images)
        (root / f"ILSVRC{year}_test_ground_truth.txt").write_text("1\n" * test, encoding="utf-8")
    return [wnids[number - 1] for number in truth]


def _jpeg(rng: np.random.Generator) -> bytes:
    """A few blurred colors, no two images alike."""
    file = io.BytesIO()
    colors = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    colors.resize((80, 64), Image.Resampling.BILINEAR).save(file, "JPEG", quality=80)
    return file.getvalue()
