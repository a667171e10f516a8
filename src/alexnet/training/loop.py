"""The training loop: one for a processor and a graphics card, for the paper's recipe and everybody's."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.data.augment import Colour, augment
from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.loader import Batch, evaluation_batches, step_seeds, steps_per_epoch, training_batches
from alexnet.errors import AlexNetError, UsageError
from alexnet.model import AlexNet
from alexnet.progress import Progress, progress
from alexnet.recipe import IMAGENET, INITIALIZATIONS, STARTER, Recipe, choose
from alexnet.run import METRICS, Config, Run, is_free
from alexnet.training import checkpoint
from alexnet.training.allocator import keep_pages
from alexnet.training.health import EpochValidation, Finding, Health, LayerUpdate, dead_units, overlap
from alexnet.training.initialization import whiten_first_convolution
from alexnet.training.optimizer import make_optimizers, update_all
from alexnet.training.precision import autocast, choose_device, choose_precision
from alexnet.training.probe import probe
from alexnet.training.schedule import Schedule
from alexnet.training.transfer import LAST, find_start, layers_above, network_of, source_words, start_from
from alexnet.weights.importing import find_weights
from alexnet.working import WorkingNetwork

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

WHITENING = 2**40  # a step that no training reaches: what is drawn for the first weights is drawn for them alone
SMALLER_RATE = 0.1  # what the learning rate is multiplied by after a loss that was not finite


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: str | Recipe = "auto",
    resume: bool = False,
    device: str | None = None,
    checkpoint_seconds: float = 120.0,
    **changes: Any,
) -> Run:
    """Train AlexNet on a prepared dataset (paper, section 5) and leave everything in the run folder `out`.

    `recipe` is a name of `alexnet.recipes()`, "auto" for the one that fits the number of pictures, or a `Recipe`;
    `changes` are values of it to override. With `resume` a stopped run goes on, with its own recipe, and ends with the
    weights that it would have had. A checkpoint is written about every `checkpoint_seconds`, and at the end.

    Raises `UsageError` for values that make no sense, `AlexNetError` when the dataset or the run folder can't be used
    or the loss stops being finite a second time; `KeyboardInterrupt` after Ctrl-C, with everything saved.
    """
    training = begin(
        data, out, recipe=recipe, resume=resume, device=device, checkpoint_seconds=checkpoint_seconds, **changes
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
    checkpoint_seconds: float = 120.0,
    **changes: Any,
) -> Training:
    """What `train` runs: a training at its first step, or with `resume` where its last checkpoint stands."""
    dataset = PreparedDataset.open(data)
    chosen_device = choose_device(device)
    keep_pages()
    if resume:
        run = _reopen(out, dataset, changes)
    else:
        if not is_free(out):
            raise AlexNetError(f"{out} exists already; go on with it with --resume, or name another folder")
        run = Run.create(out, _configure(dataset, recipe, changes, chosen_device))
    return Training(run, dataset, chosen_device, checkpoint_seconds)


def _reopen(out: str | os.PathLike[str], dataset: PreparedDataset, changes: dict[str, Any]) -> Run:
    """A run that goes on with its own recipe and dataset."""
    run = Run.open(out)
    values = run.config.recipe.to_dict()
    other = [name for name, value in changes.items() if values.get(name) != value]
    if other:
        raise UsageError(f"a resumed run keeps its own recipe; leave out {', '.join(other)}")
    if run.config.dataset.get("checksum") != _checksum(dataset):
        raise AlexNetError(f"{dataset.path} is not the dataset that {out} was trained on; resume it with that one")
    run.sweep()
    _say(f"resuming {out}: recipe {run.config.recipe.name}, seed {run.config.recipe.seed}")
    return run


def _configure(dataset: PreparedDataset, recipe: str | Recipe, changes: dict[str, Any], device: torch.device) -> Config:
    """Every choice made and said, as `config.json` keeps it."""
    pictures = len(dataset.split("train"))
    if isinstance(recipe, Recipe):
        chosen, reason = recipe, "as given"
    else:
        chosen, reason = choose(recipe, pictures)
    chosen = chosen.override(_with_network_of_start(changes))
    dtype = choose_precision(chosen.precision, device)
    said = "as asked" if chosen.precision != "auto" else "the faster on this machine"
    precision = str(dtype).removeprefix("torch.")
    chosen = chosen.override({"precision": precision})
    _say(f"recipe {chosen.name}: {reason}")
    _say(f"network {chosen.variant}; {precision}, {said}; on {_device_words(device)}; seed {chosen.seed}")
    with torch.device("meta"):
        input_size = AlexNet(chosen.variant).input_size
    crop = chosen.crop or input_size
    if crop > dataset.size and chosen.side and "crop" not in changes:
        crop = dataset.size * crop // 256  # the patch is resized anyway; the recipe's is for pictures of 256
    if crop > dataset.size:
        raise UsageError(
            f"the network reads {crop}×{crop} pixels and the prepared pictures have {dataset.size}×{dataset.size}; "
            f"prepare them with --size 256, or train with --crop {dataset.size - dataset.size // 9}"
        )
    deviation = math.sqrt(max(float(np.sum(dataset.pca_eigenvalues)) / 3, 1.0))
    config = Config(
        recipe=chosen,
        classes=list(dataset.classes),
        size=dataset.size,
        crop=crop,
        side=chosen.side or crop,
        scale=1 / deviation if chosen.pixel_unit == "deviation" else 1.0,
        dataset={
            "path": str(dataset.path),
            "checksum": _checksum(dataset),
            "counts": {name: len(dataset.split(name)) for name in dataset.splits},
        },
        descriptions=dataset.descriptions,
    )
    return config if chosen.start is None else _with_start(config, asked="init" in changes)


def _with_network_of_start(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes, and the network of weights that were asked for, where it is not asked for another.

    The starter is there for the network of the recipe.
    """
    name = changes.get("init")
    if name is None or name in (STARTER, *INITIALIZATIONS):
        return changes
    if name != IMAGENET and not os.path.exists(name) and ":" not in name:
        raise UsageError(
            f"no init {name!r}: neither a file or folder nor one of {', '.join((*INITIALIZATIONS, STARTER, IMAGENET))}"
        )
    where = os.path.abspath(name) if os.path.exists(name) else name
    return {**network_of(find_weights(name)), **changes, "init": where}


def _with_start(config: Config, asked: bool) -> Config:
    """The config that also says what is taken over; from scratch where nothing fits and nobody asked for it."""
    start = find_start(config)
    if start.layers:
        _say(start.words())
        return dataclasses.replace(config, start=start.to_dict())
    reasons = "; ".join(f"{layer}: {why}" for layer, why in list(start.left.items())[:2])
    words = f"nothing of {source_words(start.source)} fits this network ({reasons})"
    if asked:
        raise AlexNetError(words)
    _say(f"{words}: from scratch")
    return dataclasses.replace(config, recipe=config.recipe.override({"init": config.recipe.scheme}))


@dataclass
class Position:
    """Where a training stands. All of it is in the checkpoint, so that a resumed run counts on from here."""

    epoch: int = 1
    batch: int = 0  # of this epoch, done
    step: int = 0  # of all epochs, done
    loss_sum: float = 0.0  # over the pictures of this epoch so far
    wrong: int = 0
    seen: int = 0
    best_error: float = math.inf
    averaged: int = 0  # how many states of the network are in the average
    rollbacks: int = 0
    metrics_bytes: int = 0  # what of metrics.jsonl belongs to the steps done


class Training:
    """One training, from wherever its run folder stands to its end."""

    def __init__(self, run: Run, dataset: PreparedDataset, device: torch.device, checkpoint_seconds: float) -> None:
        self.run, self.device = run, device
        self.recipe = run.config.recipe
        self.dtype = choose_precision(self.recipe.precision, device)
        self.checkpoint_seconds = checkpoint_seconds
        self.training: Split = dataset.split("train")
        self.validation: Split | None = dataset.split("val") if "val" in dataset.splits else None
        self.classes = dataset.classes
        self.steps_per_epoch = steps_per_epoch(self.training, self.recipe.batch_size)
        self.total_steps = self.steps_per_epoch * self.recipe.epochs
        self.colour = Colour(dataset.pca_eigenvectors, dataset.pca_eigenvalues, self.recipe.colour_unit)
        mean = torch.from_numpy(dataset.mean_image.copy())
        if self.recipe.mean == "colour":
            mean = torch.from_numpy(dataset.mean_rgb.astype(np.float32)).expand(dataset.size, dataset.size, 3)
        self.preprocess = run.config.preprocess(mean.contiguous().to(device))
        self.bar: Progress
        self.board: SummaryWriter
        self.metrics: BinaryIO
        self.stopping: Callable[[], bool]
        self.stand()

    def stand(self) -> None:
        """Where the run folder says, or at the beginning."""
        self.start_anew()
        self.load()
        self.working = WorkingNetwork(self.network, self.dtype)

    def start_anew(self) -> None:
        """Fresh weights from the seed, nothing learned yet."""
        torch.manual_seed(self.recipe.seed)
        self.network: AlexNet = self.run.config.network()
        if self.run.config.start and not checkpoint.exists(self.run.path):
            start_from(self.network, self.run.config)
        self.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.taken = layers_above(self.run.config)
        self.optimizers = make_optimizers(self.network, self.recipe, self.taken)
        self.schedule = Schedule(self.recipe, self.steps_per_epoch)
        self.health = Health(
            self.classes,
            self.training.class_counts,
            self.recipe,
            self.steps_per_epoch,
            train=self.training,
            validation=self.validation,
        )
        self.average: dict[str, Tensor] = {}
        self.at = Position()
        if self.recipe.whiten and "conv1" not in self.taken:
            self.whiten()

    def whiten(self) -> None:
        """Let conv1 start as the principal components of the first training pictures, as the network will read them."""
        pictures_seed, network_seed = step_seeds(self.recipe.seed, WHITENING)
        batch = next(training_batches(self.training, 256, self.recipe.seed, epoch=1))
        inputs = augment(
            batch.pictures,
            dataclasses.replace(self.preprocess, mean=self.preprocess.mean.cpu()),
            self.colour,
            self.recipe,
            torch.Generator().manual_seed(pictures_seed),
            side=self.schedule.side(0) or self.run.config.side,
        )
        whiten_first_convolution(self.network, inputs, torch.Generator().manual_seed(network_seed))

    def run_to_end(self, last_step: int | None = None) -> None:
        """Train until the last epoch, or step `last_step`, is done; on Ctrl-C save and raise `KeyboardInterrupt`."""
        self.saved_at = time.monotonic()
        total = self.recipe.epochs * len(self.training)
        done = (self.at.epoch - 1) * len(self.training) + self.at.seen
        with (
            _stop_flag() as interrupted,
            self.open_metrics(),
            self.open_board(),
            progress(total, "training", done) as self.bar,
        ):
            self.stopping = lambda: interrupted.is_set() or self.at.step == last_step
            if self.at.step == 0 and self.validation is not None:
                self.report(overlap(self.training, self.validation))
            if self.at.step == 0 and self.taken:
                self.say_what_is_known()
            while self.at.epoch <= self.recipe.epochs and not self.stopping():
                self.run_epoch()
            self.save_if_finite()
        if self.at.epoch > self.recipe.epochs:
            self.say_end()
        elif interrupted.is_set():
            self.say_how_to_go_on()
            raise KeyboardInterrupt

    def say_what_is_known(self) -> None:
        """How far what was taken over goes without training it: a linear classifier on the topmost layer of it."""
        layer = [name for name in self.taken if name != LAST and not name.startswith("batch")][-1]
        known = probe(self.network.eval(), self.preprocess, self.training, self.validation, layer, self.dtype)
        if known is not None:
            self.bar.note(f"with what is already known: {known.words()}; training on")
            self.write({"event": "probe", "step": self.at.step, **dataclasses.asdict(known)})

    def run_epoch(self) -> None:
        """The rest of the epoch that the training stands in, as far as it gets."""
        recipe, start, seen_before = self.recipe, time.monotonic(), self.at.seen
        batches = training_batches(self.training, recipe.batch_size, recipe.seed, self.at.epoch, self.at.batch)
        before: dict[str, Tensor] = {}
        for batch in batches:
            last = self.at.batch + 1 == self.steps_per_epoch
            if last:
                before = {name: weight.detach().clone() for name, weight in self.layer_weights()}
            if not self.step(batch):
                return  # back at the last good state, which may lie in another epoch
            if last:
                break
            if self.stopping():
                return
            if self.is_save_due() and not self.save_if_finite():
                return
        wild = _not_finite_weights(self.network)
        if wild:
            self.go_back(wild)
            return
        rate = (self.at.seen - seen_before) / max(time.monotonic() - start, 1e-9)
        self.end_epoch(before, batch, rate, time.monotonic() - start)
        if self.is_save_due():
            self.save()

    def step(self, batch: Batch) -> bool:
        """One batch through the network and one update; False when the training had to go back instead."""
        recipe, at = self.recipe, self.at
        picture_seed, network_seed = step_seeds(recipe.seed, at.step)
        generator = torch.Generator().manual_seed(picture_seed)
        torch.manual_seed(network_seed)
        pictures, labels = batch.pictures.to(self.device), batch.labels.to(self.device)
        colour = self.schedule.colour(at.epoch)
        side = self.schedule.side(at.step) or self.run.config.side
        inputs = augment(pictures, self.preprocess, self.colour, recipe, generator, colour, side, self.dtype)
        for optimizer in self.optimizers:
            self.schedule.apply(optimizer, at.epoch, at.step)
        self.network.train()
        logits = self.working(inputs)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            self.go_back(_first_not_finite(self.network, inputs, self.device, self.dtype))
            return False
        loss.backward()
        update_all(self.optimizers, self.working.copies)

        at.step += 1
        at.batch += 1
        at.seen += len(labels)
        at.loss_sum += value * len(labels)
        at.wrong += int((logits.argmax(1) != labels).sum())
        self.update_average()
        if at.step % max(1, self.steps_per_epoch // 20) == 0:
            rate = self.rate()
            self.write({"event": "step", "epoch": at.epoch, "step": at.step, "loss": value, "lr": rate})
            self.board.add_scalar("loss/step", value, at.step)
        self.report(self.health.after_step(at.step, value))
        self.bar.advance(
            len(labels),
            epoch=f"{at.epoch}/{recipe.epochs}",
            loss=f"{at.loss_sum / at.seen:.3f}",
            error=f"{at.wrong / at.seen:.1%}",
        )
        return True

    def end_epoch(self, before: dict[str, Tensor], batch: Batch, rate: float, seconds: float) -> None:
        """Validate, look at every layer, let the schedule act, write it all down."""
        at = self.at
        loss, error = at.loss_sum / at.seen, at.wrong / at.seen
        layers = [
            LayerUpdate(name, weight.detach().abs().mean().item(), (weight.detach() - before[name]).abs().mean().item())
            for name, weight in self.layer_weights()
        ]
        validation = self.validate()
        dead = dead_units(self.network.eval(), self.preprocess.centre(batch.pictures.to(self.device)))
        judged = error if validation is None else validation.error
        learning_rate = self.rate()
        dropped = self.schedule.after_epoch(judged)
        findings = self.health.after_epoch(
            at.epoch, train_loss=loss, train_error=error, validation=validation, layers=layers, dead=dead
        )
        record: dict[str, Any] = {
            "event": "epoch",
            "epoch": at.epoch,
            "step": at.step,
            "train_loss": loss,
            "train_error": error,
            "lr": learning_rate,
            "images_per_second": rate,
            "seconds": seconds,
            "layers": {layer.name: {"weight": layer.weight, "update": layer.update} for layer in layers},
            "dead": dead,
        }
        words = f"epoch {at.epoch}/{self.recipe.epochs}  loss {loss:.4f}  error {error:.2%}"
        self.board.add_scalar("loss/train", loss, at.step)
        self.board.add_scalar("error/train", error, at.step)
        self.board.add_scalar("rate/images_per_second", rate, at.step)
        self.board.add_scalar("rate/learning", learning_rate, at.step)
        for layer in layers:
            self.board.add_scalar(f"weight/{layer.name}", layer.weight, at.step)
            self.board.add_scalar(f"update/{layer.name}", layer.update, at.step)
        if validation is not None:
            record |= {"validation_loss": validation.loss, "validation_error": validation.error}
            words += f"  |  validation loss {validation.loss:.4f}  error {validation.error:.2%}"
            self.board.add_scalar("loss/validation", validation.loss, at.step)
            self.board.add_scalar("error/validation", validation.error, at.step)
        words += f"  |  lr {learning_rate:.2g}  {rate:.0f} pictures/s"
        self.bar.note(words)
        if dropped:
            self.bar.note("the error has stopped improving: learning rate divided by ten")
        self.write(record)
        self.report(findings)
        if judged < at.best_error:
            at.best_error = judged
            if validation is not None or self.recipe.keep == "best":
                self.run.save_weights("best", self.result(), self.preprocess.mean)
        at.epoch, at.batch = at.epoch + 1, 0
        at.loss_sum, at.wrong, at.seen = 0.0, 0, 0

    @torch.no_grad()
    def validate(self) -> EpochValidation | None:
        """Loss and error of the central view over the validation split, with the weights that would be kept now."""
        if self.validation is None:
            return None
        self.network.eval()
        working = self.working
        if self.average:
            network = copy.deepcopy(self.network)
            network.load_state_dict(self.result())
            working = WorkingNetwork(network, self.dtype)
        loss, wrong = 0.0, 0
        predicted = torch.zeros(len(self.classes), dtype=torch.int64)
        for batch in evaluation_batches(self.validation, self.recipe.batch_size):
            labels = batch.labels.to(self.device)
            logits = working(self.preprocess.centre(batch.pictures.to(self.device))).float()
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            answers = logits.argmax(1)
            wrong += int((answers != labels).sum())
            predicted += torch.bincount(answers.cpu(), minlength=len(self.classes))
        count = len(self.validation)
        return EpochValidation(loss / count, wrong / count, predicted.tolist(), self.validation.class_counts)

    @torch.no_grad()
    def update_average(self) -> None:
        """Take the network into the running mean of the last part of the run, a hundred times or every step."""
        first = self.total_steps - round(self.recipe.average * self.total_steps)
        if not self.recipe.average or self.at.step <= first:
            return
        if (self.total_steps - self.at.step) % max(1, (self.total_steps - first) // 100):
            return
        self.at.averaged += 1
        for name, value in self.network.state_dict().items():
            if name not in self.average:
                self.average[name] = value.clone()
            elif value.is_floating_point():
                self.average[name].lerp_(value, 1 / self.at.averaged)

    def result(self) -> dict[str, Tensor]:
        """The weights that the training has to show so far."""
        return self.average or self.network.state_dict()

    def go_back(self, where: str) -> None:
        """After numbers that are not finite, `where` first: to the last good state, once, and on more slowly."""
        step = self.at.step
        if self.schedule.scale != 1.0:
            raise AlexNetError(
                f"numbers not finite at step {step}, first in {where}, with a tenth of the learning rate too: "
                f"train with a smaller one, such as --lr {self.recipe.lr * 0.01:g}, or with --recipe small"
            )
        self.stand()
        self.schedule.scale = SMALLER_RATE
        self.at.rollbacks += 1
        self.bar.note(
            f"numbers not finite at step {step}, first in {where}: back to step {self.at.step}, "
            "with a tenth of the learning rate"
        )
        self.metrics.truncate(self.at.metrics_bytes)
        self.metrics.seek(0, os.SEEK_END)
        self.bar.done = (self.at.epoch - 1) * len(self.training) + self.at.seen
        self.save()

    def save_if_finite(self) -> bool:
        """`save`; False when the weights are not finite and the training had to go back instead."""
        wild = _not_finite_weights(self.network)
        if wild:
            self.go_back(wild)
            return False
        self.save()
        return True

    def save(self) -> None:
        """The checkpoint, and the last weights where others than the run itself can read them."""
        self.metrics.flush()
        os.fsync(self.metrics.fileno())
        self.at.metrics_bytes = self.metrics.tell()
        state = {
            "position": dataclasses.asdict(self.at),
            "schedule": self.schedule.state_dict(),
            "health": self.health.state_dict(),
        }
        self.run.save_weights("last", self.result(), self.preprocess.mean)
        checkpoint.save(self.run.path, self.network, self.optimizers, self.average, state)
        self.saved_at = time.monotonic()

    def load(self) -> None:
        """Stand where the checkpoint stands, if there is one."""
        found = checkpoint.load(self.run.path, self.network, self.optimizers, self.device)
        if found is None:
            return
        self.average, state = found
        self.at = Position(**state["position"])
        self.schedule.load_state_dict(state["schedule"])
        self.health.load_state_dict(state["health"])

    def is_save_due(self) -> bool:
        """Whether the last checkpoint is old enough."""
        return time.monotonic() - self.saved_at > self.checkpoint_seconds

    def say_how_to_go_on(self) -> None:
        """After Ctrl-C."""
        _say(
            f"stopped after step {self.at.step} of {self.total_steps}; "
            f"go on with: alexnet train {self.run.config.dataset['path']} --out {self.run.path} --resume"
        )

    def say_end(self) -> None:
        """The closing line."""
        path = self.run.path
        words = f"trained {self.recipe.epochs} epochs; best error {self.at.best_error:.2%}"
        words += " on the validation pictures" if self.validation is not None else " on the training pictures"
        _say(f"{words}; {path}")

    def rate(self) -> float:
        """The learning rate of the weights at the step before."""
        return self.schedule.rate(self.at.epoch, max(0, self.at.step - 1), "logits")

    def layer_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and weights of each layer that has some."""
        for name, module in self.network.named_children():
            if isinstance(module, nn.Conv2d | nn.Linear):
                yield name, module.weight

    def report(self, findings: list[Finding]) -> None:
        """Say what is wrong, and write it down."""
        for finding in findings:
            self.bar.note(f"! {finding.message}; {finding.remedy}")
            self.write({"event": "finding", "step": self.at.step, **dataclasses.asdict(finding)})

    def write(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""
        self.metrics.write(json.dumps(record).encode() + b"\n")

    @contextmanager
    def open_metrics(self) -> Iterator[None]:
        """metrics.jsonl, without the lines of steps that will be taken again."""
        path = self.run.path / METRICS
        path.touch()
        with path.open("r+b") as self.metrics:
            self.metrics.truncate(self.at.metrics_bytes)
            self.metrics.seek(0, os.SEEK_END)
            yield

    @contextmanager
    def open_board(self) -> Iterator[None]:
        """The TensorBoard event files in `tensorboard/`."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(self.run.path / "tensorboard", purge_step=self.at.step or None) as self.board:
            yield


@contextmanager
def _stop_flag() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; a second Ctrl-C interrupts at once. Where signals can't be had, it is never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        _say("stopping after this step (Ctrl-C again: at once, losing what came after the last checkpoint)")
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@torch.no_grad()
def _first_not_finite(network: AlexNet, inputs: Tensor, device: torch.device, dtype: torch.dtype) -> str:
    """The first layer, on the way of a picture, whose weights or activations are not all finite."""
    if not inputs.isfinite().all():
        return "the input"
    x = inputs
    wild = _not_finite_weights(network)
    if wild:
        return wild
    with autocast(device, dtype):
        for name, module in network.named_children():
            x = module(x)
            if not x.isfinite().all():
                return f"the activations of {name}"
    return "the loss"


@torch.no_grad()
def _not_finite_weights(network: AlexNet) -> str | None:
    """The first layer whose weights are not all finite, in words; None when all are."""
    for name, module in network.named_children():
        if not all(parameter.isfinite().all() for parameter in module.parameters()):
            return f"the weights of {name}"
    return None


def _checksum(dataset: PreparedDataset) -> str:
    """One number for all that a dataset holds."""
    return hashlib.sha256(json.dumps(dataset.checksums(), sort_keys=True).encode()).hexdigest()


def _device_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
