"""`train`: every choice before the first step (device, dataset, recipe, processes, run folder), then the loop."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from alexnet.data.dataset import PreparedDataset
from alexnet.data.loading import steps_per_epoch
from alexnet.data.resolution import describe_crops
from alexnet.kernels.safe import safe_mode
from alexnet.network.model import AlexNet
from alexnet.parallel.collectives import Group, SingleProcess, is_launched_again, remember_launch, watching
from alexnet.parallel.communicator import Communicator
from alexnet.parallel.plan import LAYOUTS, PASSINGS
from alexnet.parallel.sharding import check_layout, sharding_of
from alexnet.runs.config import Config
from alexnet.runs.lock import RunLock
from alexnet.runs.recipe import Recipe, choose_recipe
from alexnet.runs.run import Run, dataset_checksum, dataset_record, is_free
from alexnet.runtime.allocator import keep_freed_memory
from alexnet.runtime.devices import choose_device, choose_precision
from alexnet.runtime.errors import AlexNetError, UsageError, check_choice
from alexnet.runtime.progress import notify
from alexnet.training.budget import LONGEST, Work, describe, plan, sizes_of, usual_plan
from alexnet.training.linear_classifier import can_fit
from alexnet.training.loop import Training
from alexnet.training.pretrained import with_pretrained_layers, with_pretrained_network
from alexnet.training.sample_weights import check_class_weights
from alexnet.training.timing import measure_cost

T = TypeVar("T")

ESTIMATED_STEPS = 200
"""Steps from which a training without a budget is timed before it begins."""


class RunFinishedError(AlexNetError):
    """A finished run can't be resumed."""

    def __init__(self, run: Run) -> None:
        epochs = f"{run.config.recipe.epochs} epoch" + "s" * (run.config.recipe.epochs > 1)
        data, new = str(run.config.dataset.get("path") or "DATA"), f"{run.path}-2"
        command = shlex.join(["alexnet", "train", data, "--out", new, "--init", str(run.path)])
        super().__init__(
            f"{run.path} is finished ({epochs}): nothing is left to train. To train its network further, start a new "
            f"run from its weights: `{command}`"
        )
        self.run = run


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: str | Recipe = "auto",
    resume: bool = False,
    device: str | None = None,
    checkpoint_interval: float = 120.0,
    keep_checkpoint: bool = False,
    safe: bool = False,
    parallel: str | None = None,
    passing: str = "in-shares",
    peer_timeout: float = 300.0,
    **changes: Any,
) -> Run:
    """Train AlexNet on a prepared dataset (paper, section 5).

    Parameters
    ----------
    data : path
        The prepared dataset.
    out : path
        The run folder; it must not exist yet, except with `resume`.
    recipe : str or Recipe
        A name of `alexnet.recipes()`, "auto" for the one that suits the number of images, or a `Recipe`.
    resume : bool
        Continue an interrupted run with its own recipe; its weights will be bitwise identical to those of a run that
        was not interrupted. For a finished run a message says so, and nothing is done.
    device : str, optional
        A PyTorch device; None for the GPU where there is one.
    checkpoint_interval : float
        Seconds between two checkpoints.
    keep_checkpoint : bool
        Whether a finished run keeps its checkpoint, the state of the optimizers; nothing reads it.
    safe : bool
        Use plain PyTorch only: no machine code or Triton kernels of this package, no recorded steps.
    parallel : {"data", "towers", "one-weird-trick"}, optional
        The layout where every process that `torchrun` started calls this; together they train what one would.
    passing : {"at-once", "in-turn", "in-shares"}
        How "one-weird-trick" passes activations to the fully connected layers.
    peer_timeout : float
        Seconds without an answer from another process after which the training ends.
    **changes
        Values of the recipe to override.

    Returns
    -------
    Run
        The run folder.

    Raises
    ------
    UsageError
        If a value is invalid.
    AlexNetError
        If the dataset or the run folder can't be used, if another training writes to the run folder, if the disk has no
        room for the run, or if the training diverges with a tenth of the learning rate too.
    KeyboardInterrupt
        After Ctrl-C, with everything saved.
    """
    training: Training | None = None
    began = time.monotonic()

    def position() -> str:
        return f"at step {training.state.counters.step}" if training else "before the first step"

    try:
        with safe_mode(safe), nullcontext() if parallel is None else watching(peer_timeout, position):
            training = set_up_training(
                *(data, out),
                recipe=recipe,
                resume=resume,
                device=device,
                checkpoint_interval=checkpoint_interval,
                keep_checkpoint=keep_checkpoint,
                parallel=parallel,
                passing=passing,
                peer_timeout=peer_timeout,
                began=began,
                estimate=True,
                **changes,
            )
            training.train()
    except RunFinishedError as finished:
        notify(str(finished))
        return finished.run
    return training.run


def set_up_training(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: str | Recipe = "auto",
    resume: bool = False,
    device: str | None = None,
    checkpoint_interval: float = 120.0,
    keep_checkpoint: bool = False,
    parallel: str | None = None,
    passing: str = "in-shares",
    peer_timeout: float = 300.0,
    began: float | None = None,
    estimate: bool = False,
    **changes: Any,
) -> Training:
    """The training that `train` runs, before its first step or, with `resume`, at its last checkpoint.

    Parameters and errors are those of `train`; a finished run raises `RunFinishedError`. Until `Training.train` has
    ended, or the training is deleted, no other process can write to the run folder. `began`: when the time of a budget
    began, by `time.monotonic`; by default now. `estimate`: whether to print how long a new training takes.
    """
    began = time.monotonic() if began is None else began
    if resume and parallel is None:
        _reopen(out, changes)  # its errors are reported before anything else is read
    if parallel is not None:
        check_choice(parallel, LAYOUTS, "layout")
        if changes.get("budget", recipe.budget if isinstance(recipe, Recipe) else None) is not None:
            raise UsageError("budget is for a single process: leave it out, or train without a layout of several")
    check_choice(passing, PASSINGS, "passing")
    chosen_device = choose_device(device)
    opened = _deferred(lambda: PreparedDataset.open(data))  # may be fetched first, by each host in its own time
    group = SingleProcess() if parallel is None else Group.join(chosen_device, peer_timeout)
    dataset = group.together(opened)
    lock = RunLock(Path(out))

    def start() -> tuple[Run, bool]:
        """The run folder, and whether its training is finished; called in the first process only."""
        if resume or (parallel is not None and is_launched_again(Path(out))):
            run = _reopen(out, changes, finished=True)
            if run.finished:
                return run, True
            lock.acquire()
            run.remove_temporary_files()
            _check_dataset(run, dataset)
            notify(f"resuming {out}: recipe {run.config.recipe.name}, seed {run.config.recipe.seed}")
        else:
            _check_free(out)
            run = None
        config = run.config if run else _configure(dataset, recipe, changes, chosen_device)
        with torch.device("meta"):
            network = config.network()
        check_layout(parallel, network, config.recipe, len(dataset.split("train")), group.size, passing)
        _check_disk_space(Path(out), network, config.recipe)
        if run is None:
            if parallel is None and (estimate or config.recipe.budget is not None):
                config = _planned(config, dataset, chosen_device, began)
            lock.acquire()
            _check_free(out)  # another training may have made it meanwhile
        if parallel is not None:
            remember_launch(Path(out))
        return run or Run.create(out, config), False

    run, finished = group.lead(start)
    if finished:
        raise RunFinishedError(run)
    group.together(lambda: _check_dataset(run, dataset))
    training = Training(
        run,
        dataset,
        chosen_device,
        Communicator(group, sharding_of(parallel, run.config.recipe, group.size, passing)),
        checkpoint_interval=checkpoint_interval,
        keep_checkpoint=keep_checkpoint,
        lock=lock if group.leads else None,
        began=began,
    )
    keep_freed_memory()  # from here on: what the initial weights took is given back
    return training


def _check_free(out: str | os.PathLike[str]) -> None:
    """Raise `AlexNetError` where a new run can't be made because there is something."""
    if not is_free(out):
        resume = "continue it with --resume, or " if (Path(out) / "config.json").exists() else ""
        raise AlexNetError(f"{out} exists already; {resume}name another folder with --out")


def _check_disk_space(folder: Path, network: AlexNet, recipe: Recipe) -> None:
    """Raise `AlexNetError` where the disk has no room for the run: found now, and not after the last epoch."""
    needed = run_bytes(network, recipe)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    own = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
    free = shutil.disk_usage(existing).free + own
    if free < needed:
        raise AlexNetError(
            f"no room for the run: weights and checkpoints take {_format_bytes(needed)}, and {existing} has "
            f"{_format_bytes(free)} free; free some space, or name a folder on another disk with --out"
        )


def run_bytes(network: AlexNet, recipe: Recipe) -> int:
    """Bytes that a run takes on the disk at most: two files of weights, a checkpoint, and the next beside it."""
    weights = sum(tensor.numel() for tensor in network.state_dict().values())
    of_update = {"paper": 1, "adamw": 2, "muon": 2}[recipe.optimizer]  # tensors like each weight
    states = 1 + of_update + (1 if recipe.weight_averaging else 0)
    return weights * (2 * 4 + 2 * states * (8 if recipe.precision == "float64" else 4))


def _format_bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _deferred(work: Callable[[], T]) -> Callable[[], T]:
    """Do `work` now; calling the result returns what it returned, or raises its error."""
    try:
        result = work()
    except AlexNetError as error:
        failure = error  # beyond the clause that names it

        def fail() -> T:
            raise failure

        return fail
    return lambda: result


def _reopen(out: str | os.PathLike[str], changes: dict[str, Any], finished: bool = False) -> Run:
    """A run that is to be resumed with its own recipe; raises `RunFinishedError` unless it may be `finished`."""
    run = Run.open(out)
    if other := run.config.recipe.differing(changes):
        raise UsageError(
            f"a resumed run keeps its own recipe: leave out {', '.join(other)}, or start a new run from its weights "
            f"with --init {shlex.quote(str(out))}"
        )
    if run.finished and not finished:
        raise RunFinishedError(run)
    return run


def _check_dataset(run: Run, dataset: PreparedDataset) -> None:
    """Raise `AlexNetError` for another dataset than that of the run."""
    if run.config.dataset.get("checksum") != dataset_checksum(dataset):
        raise AlexNetError(f"{dataset.path} is not the dataset that {run.path} was trained on; resume it with that one")


def _configure(dataset: PreparedDataset, recipe: str | Recipe, changes: dict[str, Any], device: torch.device) -> Config:
    """Make every choice of a new run and print it."""
    images = len(dataset.split("train"))
    if isinstance(recipe, Recipe):
        chosen, reason = recipe, "given"
    elif recipe == "auto" and changes.get("budget") is not None:
        chosen, reason = choose_recipe("small", images)[0], "suits a budget"
    else:
        chosen, reason = choose_recipe(recipe, images)
    chosen = chosen.override(with_pretrained_network(changes))
    if chosen.budget is not None and chosen.schedule != "cosine":
        if "schedule" in changes or chosen.schedule == "by-hand":
            raise UsageError(
                f"schedule is {chosen.schedule!r}, and a budget needs one that ends with it; give --schedule cosine, "
                "or no budget"
            )
        chosen = chosen.override({"schedule": "cosine"})
        notify("schedule cosine: a budget needs a learning rate that ends with it")
    check_class_weights(chosen, dataset.classes)
    dtype = choose_precision(chosen.precision, device)
    choice = "chosen" if chosen.precision != "auto" else "the faster on this machine"
    precision = str(dtype).removeprefix("torch.")
    chosen = chosen.override({"precision": precision})
    notify(f"recipe {chosen.name}: {reason}")
    notify(f"network {chosen.variant}; {precision} ({choice}) on {_device_name(device)}; seed {chosen.seed}")
    with torch.device("meta"):
        input_size = AlexNet(chosen.variant).input_size
    crop_size = chosen.crop_size or input_size
    if crop_size > dataset.size and chosen.input_size and "crop_size" not in changes:
        crop_size = dataset.size * crop_size // 256  # resized anyway; the recipe's is for images of 256
    if crop_size > dataset.size:
        raise UsageError(
            f"the crop size is {crop_size} and the prepared images have {dataset.size}×{dataset.size} pixels; "
            f"prepare them with --size 256, or train with --crop-size {dataset.size - dataset.size // 9}"
        )
    if max(chosen.input_size or crop_size, crop_size) > 4 * input_size and "input_size" not in changes:
        # The recipe's size is for networks like the paper's; averaging to 28 or 32 pixels' maps would blur everything.
        chosen = chosen.override({"input_size": input_size, "early_input_size": None})
        notify(f"crops are scaled to {input_size} pixels, the input of {chosen.variant}")
    notify(describe_crops(dataset.source_side, dataset.size, crop_size, chosen.input_size or crop_size))
    deviation = math.sqrt(max(float(np.sum(dataset.pca_eigenvalues)) / 3, 1.0))
    config = Config(
        recipe=chosen,
        classes=list(dataset.classes),
        size=dataset.size,
        crop_size=crop_size,
        input_size=chosen.input_size or crop_size,
        scale=1 / deviation if chosen.pixel_scaling == "std" else 1.0,
        dataset=dataset_record(dataset),
        descriptions=dataset.descriptions,
        pixel_range=dataset.pixel_range.to_dict() if dataset.pixel_range else None,
    )
    if chosen.pretrained_from is None:
        return config
    config, summary = with_pretrained_layers(config, required="init" in changes)
    notify(summary)
    return config


def _planned(config: Config, dataset: PreparedDataset, device: torch.device, began: float) -> Config:
    """Print how long the training takes, by some timed steps, and fit it to its budget, where it has one."""
    recipe, training = config.recipe, dataset.split("train")
    steps = steps_per_epoch(training, recipe.batch_size)
    if recipe.budget is None and recipe.epochs * steps < ESTIMATED_STEPS:
        return config  # over before an estimate is worth its time
    validation = len(dataset.split("val")) if "val" in dataset.splits else 0
    work = Work(steps, len(training), validation, config.input_size, config.start is not None)
    cost = measure_cost(config, dataset, device, sizes_of(recipe, config.input_size))
    if cost is None and recipe.budget is not None:
        raise AlexNetError("a step diverged while it was timed, so that no budget can be planned; give a smaller --lr")
    if cost is None:  # the training will say why
        return config
    if recipe.budget is None:
        notify(describe(usual_plan(recipe, work, cost), recipe, work, config.input_size))
        return config
    left = float(recipe.budget) - (time.monotonic() - began)
    chosen = plan(recipe, work, cost, left, linear=can_fit(config, training))
    longest = LONGEST * recipe.epochs
    changes = dict(chosen.changes)
    recipe = dataclasses.replace(recipe, **changes)
    config = dataclasses.replace(
        config,
        recipe=recipe,
        input_size=changes.get("input_size", config.input_size),
        plan={"method": chosen.method, "seconds": chosen.seconds, "longest": longest, "cost": cost.to_dict()},
    )
    notify(describe(chosen, recipe, work, config.input_size))
    return config


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"
