"""Small fully connected networks on the digits of scikit-learn, with the paper's update rule.

They are small enough for the page to train and to sample; what takes longer than a moment is computed here and shipped
with the course.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional

from alexnet.data.augmentation import resize_batch
from alexnet.evaluation.views import VIEWS
from alexnet.network.model import AlexNet
from alexnet.search.exact import nearest
from alexnet.training.optimizers import PaperSGD

SIDE, CLASSES, TRAIN = 8, 10, 1000
"""Side of an image of a digit; classes; images of which the networks are trained, the first ones. The rest is the test
set, which other people wrote."""

HIDDEN = 128
"""Units of each of the two hidden layers of the networks with dropout."""

Change = Callable[[Tensor, torch.Generator], Tensor]
"""An augmentation of a batch of images (n, 8, 8)."""


class Digits(NamedTuple):
    """The images as stored, and as the networks read them."""

    pixels: np.ndarray
    labels: np.ndarray
    inputs: Tensor
    targets: Tensor


def digits() -> Digits:
    """Read the digits: 1,797 images of 8×8 gray values, 0 to 16, of handwritten digits (UCI, CC BY 4.0).

    Returns
    -------
    Digits
        `pixels` (n, 64) uint8, `labels` (n,) uint8, `inputs` (n, 64) float32: minus the mean image of the training
        images, divided by 16.
    """
    found = load_digits()
    pixels, labels = found.data.astype(np.uint8), found.target.astype(np.uint8)
    inputs = ((pixels - pixels[:TRAIN].astype(np.float64).mean(axis=0)) / 16).astype(np.float32)
    return Digits(pixels, labels, torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64)))


def network(
    sizes: Sequence[int], *, seed: int, std: float | None = None, dropout: float = 0.0, tanh: bool = False
) -> nn.Sequential:
    """Build a network of fully connected layers.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, units of each hidden layer, classes.
    seed : int
        Seed of the initial weights.
    std : float, optional
        Standard deviation of the initial weights. Default: √(2 / fan-in), of He et al.; with `tanh` √(1 / fan-in).
    dropout : float
        Probability that the output of a hidden unit is dropped, as in section 4.2.
    tanh : bool
        tanh instead of ReLU.
    """
    generator = torch.Generator().manual_seed(seed)
    modules: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        if number:
            modules += [nn.Tanh() if tanh else nn.ReLU(), *[nn.Dropout(dropout)] * bool(dropout)]
        layer = nn.Linear(inputs, outputs)
        nn.init.normal_(layer.weight, 0, std or math.sqrt((1 if tanh else 2) / inputs), generator=generator)
        nn.init.zeros_(layer.bias)
        modules.append(layer)
    return nn.Sequential(*modules)


def layers_of(built: nn.Sequential) -> list[nn.Linear]:
    """The fully connected layers of a network."""
    return [module for module in built if isinstance(module, nn.Linear)]


def train(
    built: nn.Sequential,
    data: Digits,
    *,
    images: int = TRAIN,
    epochs: int,
    lr: float,
    seed: int,
    batch: int = 50,
    change: Change | None = None,
) -> np.ndarray:
    """Train on the first `images` digits with momentum 0.9 and weight decay 0.0005.

    Returns
    -------
    ndarray
        (epochs, 3) float32: mean loss of the batches, error rate on the training images and on the test images.
    """
    rule = PaperSGD(built.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of the dropout masks
    curve = []
    for _ in range(epochs):
        losses = []
        built.train()
        for rows in torch.randperm(images, generator=generator).split(batch):
            inputs = data.inputs[rows]
            if change is not None:
                inputs = change(inputs.view(-1, SIDE, SIDE), generator).flatten(1)
            loss = functional.cross_entropy(built(inputs), data.targets[rows])
            rule.zero_grad()
            loss.backward()
            rule.step()
            losses.append(loss.item())
        evaluated = [0.0, 0.0] if change is not None else [error(built, data, 0, images), error(built, data, TRAIN)]
        curve.append([float(np.mean(losses)), *evaluated])
    return np.array(curve, np.float32)


@torch.no_grad()
def error(built: nn.Sequential, data: Digits, first: int, last: int | None = None) -> float:
    """Error rate on the digits `first` to `last`, without dropout."""
    found = built.eval()(data.inputs[first:last]).argmax(1)
    return float((found != data.targets[first:last]).float().mean())


def with_and_without_dropout(data: Digits, *, images: int = 200, epochs: int = 100, seeds: int = 5) -> dict[str, Any]:
    """Train on few images with dropout and without: error rates of every epoch, mean over the seeds."""
    found: dict[str, Any] = {"images": images, "epochs": epochs, "seeds": seeds}
    for name, dropout in (("without", 0.0), ("with", 0.5)):
        curves = np.stack(
            [
                train(
                    network((SIDE**2, HIDDEN, HIDDEN, CLASSES), seed=seed, dropout=dropout),
                    data,
                    images=images,
                    epochs=epochs,
                    lr=0.05,
                    seed=seed,
                    batch=20,
                )
                for seed in range(seeds)
            ]
        )
        found[name] = {
            "training": _rounded(curves[:, :, 1].mean(axis=0)),
            "test": _rounded(curves[:, :, 2].mean(axis=0)),
            "test_error": curves[:, -1, 2].astype(float).tolist(),
        }
    return found


def plateau(data: Digits, *, hidden: int = 7, epochs: int = 60, lr: float = 0.02) -> dict[str, Any]:
    """Train a deep network from N(0, 0.01²) and from He initialization: loss of every epoch."""
    sizes = (SIDE**2, *[64] * hidden, CLASSES)
    found: dict[str, Any] = {"layers": hidden + 1, "epochs": epochs, "lr": lr}
    for name, std in (("paper", 0.01), ("he", None)):
        found[name] = _rounded(train(network(sizes, seed=0, std=std), data, epochs=epochs, lr=lr, seed=0)[:, 0])
    return found


CROP = 6
"""Side of a crop of a digit."""


def cropped(batch: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """A random crop of each image of a batch (n, 8, 8); with `flip` every other one is flipped, by chance."""
    rows, columns = torch.randint(SIDE - CROP + 1, (2, len(batch)), generator=generator)
    flipped = torch.rand(len(batch), generator=generator) < (0.5 if flip else 0.0)
    every = torch.arange(len(batch))[:, None, None]
    down = rows[:, None, None] + torch.arange(CROP)[:, None]
    across = torch.arange(CROP)
    across = columns[:, None, None] + torch.where(flipped[:, None, None], CROP - 1 - across, across)
    return batch[every, down, across]


@torch.no_grad()
def view_probabilities(built: nn.Sequential, images: Tensor, views: int) -> Tensor:
    """Probabilities of the classes for the views of images (n, 8, 8), in the order of `alexnet.evaluation.views`.

    Returns
    -------
    Tensor
        (views, n, 10); each crop is followed by its horizontal flip where the set of views has it.
    """
    chosen, found = VIEWS[views], []
    for top, left in chosen.offsets(SIDE, CROP):
        crop = images[:, top : top + CROP, left : left + CROP]
        found += [crop.flip(2) if across else crop for across, _, _ in chosen.flips]
    return torch.stack([built.eval()(view.flatten(1)).softmax(1) for view in found])


def trained_on_crops(data: Digits, *, epochs: int = 60, seeds: int = 3) -> tuple[dict[str, Any], list[nn.Sequential]]:
    """Train on random crops without and with flips: test errors of one, five and ten views, and the first networks."""
    found: dict[str, Any] = {"epochs": epochs, "seeds": seeds}
    first = []
    images, truth = data.inputs[TRAIN:].view(-1, SIDE, SIDE), data.targets[TRAIN:]
    for name, flip in (("crops", False), ("flips", True)):
        errors: dict[str, list[float]] = {"one": [], "five": [], "ten": []}
        for seed in range(seeds):
            built = network((CROP**2, 64, CLASSES), seed=seed)
            train(built, data, epochs=epochs, lr=0.05, seed=seed, change=partial(cropped, flip=flip))
            center, ten = view_probabilities(built, images, 1), view_probabilities(built, images, 10)
            for views, probabilities in (("one", center), ("five", ten[::2]), ("ten", ten)):
                wrong = probabilities.mean(dim=0).argmax(1) != truth
                errors[views].append(float(wrong.float().mean()))
            if seed == 0:
                first.append(built)
        found[name] = errors
    return found, first


METHODS = (
    ("SVM with a radial kernel, on pixels (scikit-learn)", "방사 커널 SVM, 픽셀(scikit-learn)", None, 0, 0, 0.0),
    ("LeNet-5 (1998) in its common form", "LeNet-5(1998), 흔한 형태", "lenet5", 28, 15, 0.01),
    ("AlexNet, two towers, input of 67 pixels", "AlexNet, 타워 두 개, 입력 67픽셀", "paper", 67, 8, 0.01),
    ("VGG-11, input of 32 pixels", "VGG-11, 입력 32픽셀", "vgg11", 32, 6, 0.01),
    ("ResNet-18, input of 32 pixels", "ResNet-18, 입력 32픽셀", "resnet18", 32, 8, 0.02),
)
"""English and Korean name; variant, its input size, epochs and learning rate."""


def comparison(data: Digits, sampled: nn.Sequential) -> dict[str, Any]:
    """Test error, in percent, of an SVM, of variants of this package and of nearest neighbors, on the digits."""
    methods = []
    for name, korean, variant, side, epochs, lr in METHODS:
        if variant is None:
            machine = SVC().fit(data.inputs[:TRAIN].numpy(), data.labels[:TRAIN])
            found = float((machine.predict(data.inputs[TRAIN:].numpy()) != data.labels[TRAIN:]).mean())
        else:
            found = _error_of_variant(data, variant, side=side, epochs=epochs, lr=lr)
        methods.append({"name": name, "korean": korean, "error": round(100 * found, 2)})
    small = "fully connected, 128 + 128 units, dropout", "완전 연결, 유닛 128 + 128개, 드롭아웃"
    methods.append({"name": small[0], "korean": small[1], "error": round(100 * error(sampled, data, TRAIN), 2)})
    with torch.no_grad():
        vectors = {"pixels": data.inputs.numpy(), "features": sampled.eval()[:-1](data.inputs).numpy()}
    neighbors = {}
    for space, rows in vectors.items():
        first = nearest(rows[TRAIN:], rows[:TRAIN], 1)[1][:, 0]
        neighbors[space] = round(100 * float((data.labels[first] != data.labels[TRAIN:]).mean()), 2)
    return {"methods": methods, "nearest": neighbors}


def _error_of_variant(data: Digits, variant: str, *, side: int, epochs: int, lr: float) -> float:
    """Train a variant on the digits, enlarged to `side` pixels, from He initialization; return its test error."""
    torch.manual_seed(0)
    built = AlexNet(variant, CLASSES)
    built.initialize("he")
    images = resize_batch(data.inputs.view(-1, 1, SIDE, SIDE), side).expand(-1, 3, -1, -1).contiguous()
    rule = PaperSGD(built.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(TRAIN, generator=generator).split(50):
            loss = functional.cross_entropy(built.train()(images[rows]), data.targets[rows])
            rule.zero_grad()
            loss.backward()
            rule.step()
    built.eval()
    with torch.no_grad():
        found = torch.cat([built(rows).argmax(1) for rows in images[TRAIN:].split(100)])
    return float((found != data.targets[TRAIN:]).float().mean())


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
