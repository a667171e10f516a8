"""ILSVRC's own files, in small: the tar files and the devkit as its organisers lay them out."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

Files = dict[str, bytes]


def write_tar(path: Path, files: Files, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        _add(archive, files)
    return path


def tar_bytes(files: Files) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        _add(archive, files)
    return file.getvalue()


def meta_mat(year: int, synsets: Mapping[str, str]) -> bytes:
    """WordNet id → words in the order of their ILSVRC ids; behind them an inner node, which has no pictures."""
    kinds = [(f"ILSVRC{year}_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = np.empty((len(synsets) + 1, 1), dtype=kinds)
    for number, (wnid, words) in enumerate({**synsets, "n99999999": "whole"}.items()):
        rows[number, 0] = (number + 1, wnid, words, len(synsets) if number == len(synsets) else 0)
    file = io.BytesIO()
    savemat(file, {"synsets": rows})
    return file.getvalue()


def ilsvrc_2012(root: Path, validation: int) -> list[str]:
    """ILSVRC-2012 with its 1000 classes, a picture each, and so many validation pictures.

    Returns the WordNet ids of the validation pictures.
    """
    rng = np.random.default_rng(2012)
    # Ids in another order than the names, as in the real one.
    wnids = [f"n{number:08}" for number in rng.permutation(np.arange(1_440_764, 1_441_764))]
    train = {f"{wnid}.tar": tar_bytes({f"{wnid}_{number}.JPEG": _jpeg(rng)}) for number, wnid in enumerate(wnids)}
    truth = rng.integers(1, len(wnids) + 1, validation)
    pictures = {f"ILSVRC2012_val_{number:08}.JPEG": _jpeg(rng) for number in range(1, validation + 1)}
    kit = {
        "data/meta.mat": meta_mat(2012, {wnid: f"thing {wnid[1:]}" for wnid in wnids}),
        "data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{number}\n" for number in truth).encode(),
    }
    root.mkdir(parents=True)
    write_tar(root / "ILSVRC2012_img_train.tar", train)
    write_tar(root / "ILSVRC2012_img_val.tar", pictures)
    write_tar(
        root / "ILSVRC2012_devkit_t12.tar.gz",
        {f"ILSVRC2012_devkit_t12/{name}": content for name, content in kit.items()},
        "w:gz",
    )
    return [wnids[number - 1] for number in truth]


def _add(archive: tarfile.TarFile, files: Files) -> None:
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _jpeg(rng: np.random.Generator) -> bytes:
    """A few blurred colours, no two pictures alike."""
    file = io.BytesIO()
    colours = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    colours.resize((80, 64), Image.Resampling.BILINEAR).save(file, "JPEG", quality=80)
    return file.getvalue()
