"""The arrays that the course shows: photographs, kernels of the starter weights, digits, and small networks.

`alexnet learn --compute FILE` writes them. The file that the package ships was written by that command; its metadata
records the command, the versions and the licenses of the photographs.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from alexnet.data.decoding import square_image
from alexnet.learn.digits import (
    CLASSES,
    HIDDEN,
    comparison,
    digits,
    layers_of,
    network,
    plateau,
    train,
    trained_on_crops,
    with_and_without_dropout,
)
from alexnet.network.model import AlexNet
from alexnet.network.optimized import gain_and_offset
from alexnet.report.figure_files import writing
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic
from alexnet.runtime.provenance import provenance
from alexnet.weights.importing import STARTER_FILE

PHOTOGRAPHS = (
    ("temple", "sklearn.datasets.images", "china.jpg", "danielbuechele (Flickr)", "CC BY 2.0"),
    ("flower", "sklearn.datasets.images", "flower.jpg", "vultilion (Flickr)", "CC BY 2.0"),
    ("portrait", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "United States Navy", "public domain"),
)
"""Name, package and file of each photograph, its author and its license."""

SIDE = 256


def compute(path: Path, command: str) -> None:
    """Compute all arrays of the course and write them as safetensors.

    Parameters
    ----------
    path : Path
        The file to write.
    command : str
        The command line, for the provenance in the metadata.

    Raises
    ------
    AlexNetError
        If a package with a photograph is not installed, or the folder of the file cannot be made.
    """
    with writing(path.parent, "the arrays"):
        path.parent.mkdir(parents=True, exist_ok=True)  # before minutes of trainings
    images = np.stack([_photograph(package, file) for _, package, file, *_ in PHOTOGRAPHS])
    arrays = {"images": images, **Starter().first_layer()}
    data = digits()
    arrays |= {"digits": data.pixels, "digit_labels": data.labels}
    sampled = network((data.pixels.shape[1], HIDDEN, HIDDEN, CLASSES), seed=0, dropout=0.5)
    train(sampled, data, epochs=60, lr=0.05, seed=0)
    of_views, (crops, flips) = trained_on_crops(data)
    for name, built in (("sampled", sampled), ("crops", crops), ("flips", flips)):
        for number, layer in enumerate(layers_of(built)):
            arrays |= {f"{name}_weight{number}": _array(layer.weight), f"{name}_bias{number}": _array(layer.bias)}
    measured = {"dropout": with_and_without_dropout(data), "plateau": plateau(data), "views": of_views}
    measured["comparison"] = comparison(data, sampled)
    metadata = {
        "measured": json.dumps(measured),
        "provenance": json.dumps(provenance(command)),
        "photographs": json.dumps([{"name": n, "author": a, "license": li} for n, _, _, a, li in PHOTOGRAPHS]),
    }
    write_atomic(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata))


class Starter:
    """The first convolution of the starter weights, with the preprocessing of its training."""

    def __init__(self) -> None:
        with safe_open(STARTER_FILE, framework="pt") as opened:
            config = json.loads(opened.metadata()["alexnet.config"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        self.mean = tensors.pop("preprocess.mean").float().mean(dim=(0, 1))
        self.scale = float(config["scale"])
        self.network = AlexNet("convolutions", 2, normalization="batch").eval()
        self.network.load_state_dict({name: t.float() for name, t in tensors.items() if t.ndim}, strict=False)

    def first_layer(self) -> dict[str, np.ndarray]:
        """The first convolution, its batch normalization as one factor and one offset per kernel, and the input's."""
        norm = self.network.get_submodule("batch1")
        assert isinstance(norm, nn.BatchNorm2d)
        gain, offset = gain_and_offset(norm)
        return {
            "kernels": _array(self.network.get_parameter("conv1.weight")),
            "gain": _array(gain),
            "offset": _array(offset),
            "input_mean": _array(self.mean),
            "input_scale": np.array([self.scale], np.float32),
        }


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().numpy()


def _photograph(package: str, file: str) -> np.ndarray:
    try:
        return square_image((files(package) / file).read_bytes(), SIDE)
    except ModuleNotFoundError as error:
        raise AlexNetError(f"the photograph {file} is part of {package}: pip install {error.name}") from error
