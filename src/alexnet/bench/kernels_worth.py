"""The gain of each kernel: the time of a whole with the kernel, and with its plain form instead.

The whole is a training step, inference, loading or preparation.
The plain form is the fastest one of PyTorch, NumPy, Pillow or numba that is known for it. A kernel that gains less than
`LEAST_GAIN` of its whole is not worth its code.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from alexnet.bench import steps
from alexnet.bench.data import photograph_batches
from alexnet.bench.parts import Settings
from alexnet.bench.peers import SIDE
from alexnet.bench.steps import BATCH_SIZE, OurTraining
from alexnet.bench.synthetic import photographs
from alexnet.bench.timing import in_turn
from alexnet.data import augmentation
from alexnet.data.decoding import decode
from alexnet.data.resize import square
from alexnet.data.statistics import pixel_sum
from alexnet.kernels import adam
from alexnet.kernels.pool import max_pool
from alexnet.kernels.rgb_products import rgb_products
from alexnet.network import normalization, optimized
from alexnet.network.frozen import FrozenNetwork
from alexnet.network.model import AlexNet
from alexnet.network.normalization import local_response_norm
from alexnet.network.optimized import OptimizedNetwork
from alexnet.network.variants import LocalNorm
from alexnet.runs.recipe import recipes
from alexnet.runtime.files import write_atomic
from alexnet.training.optimizers import clear_gradients

LEAST_GAIN = 0.03
PREPARED_SIZE = 256
SMALL_BATCH_SIZE = 32


def kernels(settings: Settings) -> dict[str, Any]:
    """Measure the gain of every kernel, as a share of the time without it."""
    rows = [
        *(row for count in _batch_sizes(settings) for row in _training_step(settings, count)),
        *_small_step(settings),
        *(row for count in (1, 64) for row in _inference(settings, count)),
        *_loading(settings),
        *_preparing(settings),
    ]
    return {
        "description": "the time of a whole with a kernel, and with its plain form instead; gain: the share of the "
        "time without the kernel that it saves, median of the rounds with minimum and maximum",
        "least_gain": LEAST_GAIN,
        "kernels": rows,
    }


def _row(kernel: str, plain: str, whole: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    gains = [1 - our / their for our, their in zip(ours, theirs, strict=True)]
    return {
        "kernel": kernel,
        "plain_form": plain,
        "whole": whole,
        "milliseconds": round(1e3 * statistics.median(ours), 2),
        "milliseconds_plain": round(1e3 * statistics.median(theirs), 2),
        "gain": round(statistics.median(gains), 4),
        "spread": [round(min(gains), 4), round(max(gains), 4)],
    }


# The training step.


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute of a module or class another value within the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _nothing(*_: object, **__: object) -> None:
    """No kernel: in the place of a function that returns the kernels, or whether one supports its arguments."""


def _norm_after_relu(self: Any, x: Tensor) -> Tensor:
    row: LocalNorm = self.row
    constants = (row.size, row.alpha, row.beta, row.k)
    return local_response_norm(functional.relu(x), *constants, divide_by_n=row.divide_by_n, groups=row.groups)


def _pool_after_relu(self: Any, x: Tensor) -> Tensor:
    return max_pool(functional.relu(x) if self.relu else x, ceil=self.pool.ceil_mode)


@contextmanager
def _relu_apart() -> Iterator[None]:
    with (
        _replaced(optimized._ReluNorm, "__call__", _norm_after_relu),
        _replaced(optimized.ReluPool, "__call__", _pool_after_relu),
    ):
        yield


_Plain = tuple[str, str, Callable[[], AbstractContextManager[object]]]
"""A kernel, its plain form, and the context in which the plain form runs."""

_FORWARD: dict[str, _Plain] = {
    "norm": (
        "response normalization",
        "PyTorch operations (local_response_norm_reference)",
        lambda: _replaced(normalization, "_kernels", _nothing),
    ),
    "pool": (
        "overlapping max pooling",
        "torch.nn.MaxPool2d",
        lambda: _replaced(optimized, "can_pool", _nothing),
    ),
    "relu": (
        "ReLU fused into normalization and pooling",
        "torch.nn.functional.relu before them",
        _relu_apart,
    ),
}


def _batch_sizes(settings: Settings) -> list[int]:
    return [settings.batch_size] if settings.batch_size else [SMALL_BATCH_SIZE, BATCH_SIZE]


def _within(context: Callable[[], AbstractContextManager[object]], run: Callable[[], object]) -> Callable[[], None]:
    def run_plain() -> None:
        with context():
            run()

    return run_plain


def _training_step(settings: Settings, count: int) -> Iterator[dict[str, Any]]:
    training = OurTraining(count)
    plain_forms: dict[str, _Plain] = {
        **_FORWARD,
        "update": (
            "update rule of the paper",
            "torch.optim.SGD, fused, and torch._foreach_copy_",
            _fused_sgd(training),
        ),
    }

    sides = {name: _within(context, training.step) for name, (_, _, context) in plain_forms.items()}
    sides["ours"] = training.step
    if training.dtype == torch.bfloat16:
        sides["copies"] = _AutocastTraining(count).step
        plain_forms["copies"] = ("bfloat16 copies of the weights", "torch.autocast", nullcontext)
    seconds = in_turn(sides, settings.rounds)
    whole = f"training step, paper, batch {count}, {str(training.dtype).removeprefix('torch.')}"
    for name, (kernel, plain, _) in plain_forms.items():
        yield _row(kernel, plain, whole, seconds["ours"], seconds[name])


def _small_step(settings: Settings) -> Iterator[dict[str, Any]]:
    recipe = recipes()["small"]
    count, side = settings.batch_size or recipe.batch_size, recipe.early_input_size or SIDE
    training = OurTraining(count, side, recipe="small")
    if training.dtype != torch.bfloat16:
        return  # there are no rounded copies
    plain = _within(lambda: _replaced(adam, "can_update", _nothing), training.step)
    seconds = in_turn({"ours": training.step, "plain": plain}, settings.rounds)
    whole = f"training step, small, batch {count}, {side} pixels, bfloat16"
    yield _row("update of AdamW", "torch.optim.AdamW, fused", whole, seconds["ours"], seconds["plain"])


def _inference(settings: Settings, count: int) -> Iterator[dict[str, Any]]:
    network = FrozenNetwork(AlexNet("paper").eval().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    images = torch.randn(count, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def predict() -> None:
        network(images)

    sides = {name: _within(context, predict) for name, (_, _, context) in _FORWARD.items()}
    seconds = in_turn({"ours": predict, **sides}, settings.rounds, repeats=max(1, 64 // count))
    whole = f"inference, paper, {count} {'image' if count == 1 else 'images'}, float32"
    for name, (kernel, plain, _) in _FORWARD.items():
        yield _row(kernel, plain, whole, seconds["ours"], seconds[name])


def _fused_sgd(training: OurTraining) -> Callable[[], AbstractContextManager[None]]:
    """A context in which a training updates its weights by torch's fused SGD instead of the paper's rule."""
    parameters = list(training.network.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)

    @torch.no_grad()
    def update(optimizers: Sequence[torch.optim.Optimizer], copies: Mapping[nn.Parameter, nn.Parameter]) -> None:
        for parameter, copy in copies.items():
            parameter.grad = None if copy.grad is None else copy.grad.to(parameter.dtype)
        optimizer.step()
        if copies:
            torch._foreach_copy_(list(copies.values()), list(copies))
        clear_gradients([*optimizers, optimizer], copies)

    return lambda: _replaced(steps, "update_all", update)


class _AutocastTraining(OurTraining):
    """The same step with float32 weights, rounded by autocast in every forward pass."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.working = OptimizedNetwork(self.network, torch.float32)

    def work(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.working(images)
        clear_gradients(self.optimizers, {})
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()


# Loading.


def _loading(settings: Settings) -> Iterator[dict[str, Any]]:
    count = settings.batch_size or BATCH_SIZE
    batches = photograph_batches(settings.folder, count, torch.device("cpu"), torch.float32)
    numba_cut = _numba_cut()

    def plain() -> None:
        with _replaced(augmentation, "can_cut", _nothing):
            next(batches)

    def numba() -> None:
        with _replaced(augmentation, "cut", numba_cut):
            next(batches)

    sides = {"ours": lambda: next(batches), "plain": plain, "numba": numba}
    seconds = in_turn(sides, settings.rounds, repeats=8)
    whole = f"loading and augmentation, batch {count}, float32"
    yield _row("crops", "PyTorch operations", whole, seconds["ours"], seconds["plain"])
    yield _row("crops", "numba, parallel", whole, seconds["ours"], seconds["numba"])


def _numba_cut() -> Callable[..., Tensor]:
    import numba

    numba.set_num_threads(torch.get_num_threads())

    @numba.njit(parallel=True, fastmath=True, cache=False)
    def crop(images, mean, places, mean_places, flips, gain, shift, out, turn_mean):  # type: ignore[no-untyped-def]
        count, side = out.shape[0], out.shape[1]
        for piece in numba.prange(count * side):
            i, y = piece // side, piece % side
            row = side - 1 - y if flips[i, 1] else y
            mean_row = row if turn_mean else y
            for x in range(side):
                column = side - 1 - x if flips[i, 0] else x
                mean_column = column if turn_mean else x
                for c in range(3):
                    value = np.float32(images[i, places[i, 0] + row, places[i, 1] + column, c])
                    expected = mean[mean_places[i, 0] + mean_row, mean_places[i, 1] + mean_column, c]
                    out[i, y, x, c] = gain[i] * (value - expected) + shift[i, c]

    def cut(images, mean, places, mean_places, flips, gain, shift, *, crop_size, turn_mean, dtype):  # type: ignore[no-untyped-def]
        out = torch.empty(len(images), crop_size, crop_size, 3, dtype=dtype)
        tensors = (images, mean.float(), places, mean_places, flips, gain.float(), shift.float(), out)
        crop(*(tensor.numpy() for tensor in tensors), turn_mean)
        return out

    return cut


# Preparation.


def _preparing(settings: Settings) -> Iterator[dict[str, Any]]:
    files = photographs(settings.folder / "photographs", 256)[:256]
    contents = [file.read_bytes() for file in files]
    images = np.empty((len(contents), PREPARED_SIZE, PREPARED_SIZE, 3), dtype=np.uint8)

    def shard(
        scale: Callable[[np.ndarray, int], np.ndarray] = square,
        products: Callable[[np.ndarray], np.ndarray] = rgb_products,
    ) -> None:
        for target, content in zip(images, contents, strict=True):
            np.copyto(target, scale(decode(content, 2 * PREPARED_SIZE), PREPARED_SIZE))
        hashlib.sha256(images.data).digest()
        pixel_sum(images)
        products(images)
        write_atomic(settings.folder / "shard", lambda file: file.write(images.data))

    forms = {"ours": shard, "pillow": lambda: shard(_pillow_square), "numpy": lambda: shard(products=_numpy_products)}
    seconds = in_turn(forms, settings.rounds)
    whole = f"preparation of {len(contents)} photographs in one process"
    yield _row("scaling", "Pillow, BILINEAR (the same bits)", whole, seconds["ours"], seconds["pillow"])
    yield _row("products of R, G and B", "NumPy dot products, float64", whole, seconds["ours"], seconds["numpy"])


def _pillow_square(image: np.ndarray, size: int) -> np.ndarray:
    height, width, _ = image.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))


def _numpy_products(images: np.ndarray) -> np.ndarray:
    total = np.zeros((3, 3), dtype=np.int64)
    # Dot products of the channels take a third of the time of a product of (3, pixels) and (pixels, 3) matrices.
    channels = np.empty((3, images.shape[1] * images.shape[2]))
    red, green, blue = channels
    for image in images:
        channels[:] = image.reshape(-1, 3).T
        rg, rb, gb = red @ green, red @ blue, green @ blue
        total += np.array([[red @ red, rg, rb], [rg, green @ green, gb], [rb, gb, blue @ blue]]).astype(np.int64)
    return total
