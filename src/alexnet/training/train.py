"""Every choice before the first step: device, dataset, recipe, processes, run folder; then the loop."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from alexnet.data.dataset import PreparedDataset
from alexnet.network.model import AlexNet
from alexnet.parallel.collectives import Group, is_launched_again, remember_launch, watching
from alexnet.parallel.layouts import open_layout
from alexnet.runs.recipe import Recipe, choose
from alexnet.runs.run import Config, Run, is_free
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.progress import notify
from alexnet.training.loop import Training
from alexnet.training.pretrained import with_network_of_start, with_start

T = TypeVar("T")


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: str | Recipe = "auto",
    resume: bool = False,
    device: str | None = None,
    checkpoint_interval: float = 120.0,
    parallel: str | None = None,
    passing: str = "in-shares",
    peer_timeout: float = 300.0,
    **changes: Any,
) -> Run:
    """Train AlexNet on a prepared dataset (paper, section 5) and leave everything in the run folder `out`.

    `recipe` is a name of `alexnet.recipes()`, "auto" for the one that fits the number of images, or a `Recipe`;
    `changes` are values of it to override. With `resume` a stopped run goes on, with its own recipe, and ends with the
    weights that it would have had. A checkpoint is written about every `checkpoint_interval`, and at the end.

    With `parallel` ("data", "towers" or "one-weird-trick") every process that `torchrun` starts calls this, and
    together they train what one would; `passing` says how one weird trick passes activations
    (`layouts.OneWeirdTrick`), and a process that does not answer for `peer_timeout` ends the training.

    Raises `UsageError` for values that make no sense, `AlexNetError` when the dataset or the run folder can't be used
    or the loss stops being finite a second time; `KeyboardInterrupt` after Ctrl-C, with everything saved.
    """
    training: Training | None = None

    def where() -> str:
        return f"at step {training.at.step}" if training else "before the first step"

    with nullcontext() if parallel is None else watching(peer_timeout, where):
        training = begin(
            *(data, out),
            recipe=recipe,
            resume=resume,
            device=device,
            checkpoint_interval=checkpoint_interval,
            parallel=parallel,
            passing=passing,
            peer_timeout=peer_timeout,
            **changes,
        )
        training.run_to_end()
    return training.run


def begin(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: str | Recipe = "auto",
    resume: bool = False,
    device: str | None = None,
    checkpoint_interval: float = 120.0,
    parallel: str | None = None,
    passing: str = "in-shares",
    peer_timeout: float = 300.0,
    **changes: Any,
) -> Training:
    """What `train` runs: a training at its first step, or with `resume` where its last checkpoint stands."""
    chosen_device = choose_device(device)
    opened = _tried(lambda: PreparedDataset.open(data))  # may be fetched first, by each host in its own time
    group = None if parallel is None else Group.join(chosen_device, peer_timeout)
    dataset = opened() if group is None else group.together(opened)
    layout_of = partial(open_layout, parallel, group=group, passing=passing)

    def start() -> Run:
        goes_on = resume or (group is not None and is_launched_again(Path(out)))
        run = _reopen(out, dataset, changes) if goes_on else None
        if run is None and not is_free(out):
            raise AlexNetError(f"{out} exists already; go on with it with --resume, or name another folder")
        config = run.config if run else _configure(dataset, recipe, changes, chosen_device)
        with torch.device("meta"):
            layout_of(config.recipe).check(config.network(), len(dataset.split("train")))
        if group is not None:
            remember_launch(Path(out))
        return run or Run.create(out, config)

    if group is None:
        run = start()
    else:
        run = group.lead(start)
        group.together(lambda: _check_dataset(run, dataset))
    training = Training(run, dataset, chosen_device, checkpoint_interval, layout_of(run.config.recipe))
    keep_freed_memory()  # from here on: what the first weights took is given back
    return training


def _tried(work: Callable[[], T]) -> Callable[[], T]:
    """`work`, done now; what it returned, or the error that it ended with, comes when that is called."""
    try:
        result = work()
    except AlexNetError as error:
        failure = error  # beyond the clause that names it

        def fail() -> T:
            raise failure

        return fail
    return lambda: result


def _reopen(out: str | os.PathLike[str], dataset: PreparedDataset, changes: dict[str, Any]) -> Run:
    """A run that goes on with its own recipe and dataset."""
    run = Run.open(out)
    if other := run.config.recipe.differing(changes):
        raise UsageError(f"a resumed run keeps its own recipe; leave out {', '.join(other)}")
    _check_dataset(run, dataset)
    run.sweep()
    notify(f"resuming {out}: recipe {run.config.recipe.name}, seed {run.config.recipe.seed}")
    return run


def _check_dataset(run: Run, dataset: PreparedDataset) -> None:
    """Raise `AlexNetError` where a run was trained on another dataset."""
    if run.config.dataset.get("checksum") != _checksum(dataset):
        raise AlexNetError(f"{dataset.path} is not the dataset that {run.path} was trained on; resume it with that one")


def _configure(dataset: PreparedDataset, recipe: str | Recipe, changes: dict[str, Any], device: torch.device) -> Config:
    """Every choice made and said, as `config.json` keeps it."""
    images = len(dataset.split("train"))
    if isinstance(recipe, Recipe):
        chosen, reason = recipe, "as given"
    else:
        chosen, reason = choose(recipe, images)
    chosen = chosen.override(with_network_of_start(changes))
    dtype = choose_precision(chosen.precision, device)
    said = "as asked" if chosen.precision != "auto" else "the faster on this machine"
    precision = str(dtype).removeprefix("torch.")
    chosen = chosen.override({"precision": precision})
    notify(f"recipe {chosen.name}: {reason}")
    notify(f"network {chosen.variant}; {precision}, {said}; on {_device_words(device)}; seed {chosen.seed}")
    with torch.device("meta"):
        input_size = AlexNet(chosen.variant).input_size
    crop_size = chosen.crop_size or input_size
    if crop_size > dataset.size and chosen.input_size and "crop_size" not in changes:
        crop_size = dataset.size * crop_size // 256  # the crop is resized anyway; the recipe's is for images of 256
    if crop_size > dataset.size:
        raise UsageError(
            f"the crop size is {crop_size} and the prepared images have {dataset.size}×{dataset.size} pixels; "
            f"prepare them with --size 256, or train with --crop-size {dataset.size - dataset.size // 9}"
        )
    deviation = math.sqrt(max(float(np.sum(dataset.pca_eigenvalues)) / 3, 1.0))
    config = Config(
        recipe=chosen,
        classes=list(dataset.classes),
        size=dataset.size,
        crop_size=crop_size,
        input_size=chosen.input_size or crop_size,
        scale=1 / deviation if chosen.pixel_scaling == "std" else 1.0,
        dataset={
            "path": dataset.address,
            "checksum": _checksum(dataset),
            "counts": dataset.counts,
        },
        descriptions=dataset.descriptions,
        pixel_range=dataset.pixel_range.to_dict() if dataset.pixel_range else None,
    )
    if chosen.start is None:
        return config
    config, words = with_start(config, asked="init" in changes)
    notify(words)
    return config


def _checksum(dataset: PreparedDataset) -> str:
    """One number for all that a dataset holds."""
    return hashlib.sha256(json.dumps(dataset.checksums(), sort_keys=True).encode()).hexdigest()


def _device_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
