"""ImageNet's challenge as its organizers hand it out: ILSVRC-2012, ILSVRC-2010, and others of their layout.

    ILSVRC2012_img_train.tar          1000 tar files, nXXXXXXXX.tar, of nXXXXXXXX_N.JPEG
    ILSVRC2012_img_val.tar            ILSVRC2012_val_0000000N.JPEG
    ILSVRC2012_devkit_t12.tar.gz      data/meta.mat, data/ILSVRC2012_validation_ground_truth.txt

    ILSVRC2010_images_train.tar       as above
    ILSVRC2010_images_val.tar         val/ILSVRC2010_val_0000000N.JPEG
    ILSVRC2010_images_test.tar        test/ILSVRC2010_test_0000000N.JPEG
    ILSVRC2010_devkit-1.0.tar.gz      devkit-1.0/data/meta.mat, …/ILSVRC2010_validation_ground_truth.txt
    ILSVRC2010_test_ground_truth.txt
    crop_images.tar                  sound copies of damaged images

A class is called by its WordNet id. A ground truth has one ILSVRC id a line, line N for image N, and meta.mat says
which WordNet id that is; the order of the ILSVRC ids themselves is not used.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet.data.sources.items import Item, Origin, Source
from alexnet.data.sources.walking import Entry, Walk, plain_tar_entries, read_entry
from alexnet.runtime.errors import AlexNetError

_TRAIN = re.compile(r"ILSVRC(20\d\d)_(?:img|images)_train\.tar")
_TRUTHS = {"val": "validation", "test": "test"}


def is_ilsvrc(root: Path) -> bool:
    """Whether a folder holds the tar file of ILSVRC's training images."""
    return any(_TRAIN.fullmatch(path.name) for path in root.iterdir())


def open_ilsvrc(root: Path, spool: Path) -> Source:
    """List the images of a folder of ILSVRC's own files.

    Parameters
    ----------
    root
        The folder.
    spool
        An existing folder for the unpacked devkit.

    Raises
    ------
    AlexNetError
        When the devkit is missing, or an image has no class in it.
    """
    year = next(match[1] for path in sorted(root.iterdir()) if (match := _TRAIN.fullmatch(path.name)))
    kits = sorted({*root.glob(f"ILSVRC{year}_devkit*"), *root.glob("devkit*")})
    if not kits:
        raise AlexNetError(
            f"{root} misses the devkit, ILSVRC{year}_devkit….tar.gz, which says the class of a label: download it too"
        )
    kit = {entry.parts[-1]: entry for path in kits for entry in Walk(path, spool=spool)}
    if "meta.mat" not in kit:
        raise AlexNetError(f"{kits[0]} holds no meta.mat: it is not the devkit of ILSVRC{year}")
    synsets = _synsets(read_entry(kit["meta.mat"]), year)
    crop = root / "crop_images.tar"
    crops = {entry.parts[-1]: entry for entry in plain_tar_entries(crop)} if crop.exists() else {}

    items: list[Item] = []
    warnings: list[str] = []
    origins: list[Origin] = []
    for split in ("train", "val", "test"):
        for tar in sorted(root.glob(f"ILSVRC{year}_im*_{split}.tar")):
            labels = _class_of(root, kit, split, year, synsets)
            if labels is None:
                warnings.append(f"{tar.name} is not used: {root} has no labels for it")
                continue
            origins.append(Origin(split, tar.name))
            for entry in plain_tar_entries(tar):
                name = entry.parts[-1]
                place = crops.get(name, entry)[1:5]
                items.append(Item(f"{split}/{name}", labels(name), split, *place))
    return Source(items, dict(synsets.values()), f"ILSVRC-{year}", origins, warnings=warnings)


def _synsets(meta: bytes, year: str) -> dict[int, tuple[str, str]]:
    """ILSVRC id → (WordNet id, description)."""
    from scipy.io import loadmat

    rows = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
    return {int(row[f"ILSVRC{year}_ID"]): (str(row["WNID"]), str(row["words"])) for row in rows}


def _class_of(
    root: Path, kit: dict[str, Entry], split: str, year: str, synsets: dict[int, tuple[str, str]]
) -> Callable[[str], str] | None:
    """The function from the name of an image of a split to its WordNet id; None where its labels are missing."""
    if split == "train":
        known = {wnid for wnid, _ in synsets.values()}

        def by_name(name: str) -> str:
            wnid = name.partition("_")[0]
            if wnid not in known:
                raise AlexNetError(f"{root}: {name} has no class in the devkit's meta.mat")
            return wnid

        return by_name

    truth_name = f"ILSVRC{year}_{_TRUTHS[split]}_ground_truth.txt"
    if (root / truth_name).exists():
        text = (root / truth_name).read_bytes()
    elif truth_name in kit:
        text = read_entry(kit[truth_name])
    else:
        return None
    ids = [int(line) for line in text.split()]

    def by_number(name: str) -> str:
        number = int(Path(name).stem.rpartition("_")[2])
        if not 1 <= number <= len(ids):
            raise AlexNetError(f"{root}: {name} has no line in {truth_name}, which has {len(ids)}")
        return synsets[ids[number - 1]][0]

    return by_number
