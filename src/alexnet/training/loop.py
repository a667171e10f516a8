"""The training loop: one for a processor and a graphics card, for the paper's recipe and everybody's."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.data.augmentation import AugmentationPipeline
from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.loading import Batch, evaluation_batches, step_seeds, steps_per_epoch, training_batches
from alexnet.network.layers import Weighted
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.parallel.layouts import ENTRY, Alone, Block
from alexnet.runs import checkpoint
from alexnet.runs.run import Run
from alexnet.runtime.devices import choose_precision
from alexnet.runtime.errors import AlexNetError, ReportedElsewhereError
from alexnet.runtime.interrupts import interrupt_flag
from alexnet.runtime.progress import Progress, notify, progress
from alexnet.training.diagnostics import (
    EpochValidation,
    Finding,
    Health,
    LayerUpdate,
    dead_units,
    overlap,
    worse_than_known,
)
from alexnet.training.input_pipeline import augmentation_pipeline
from alexnet.training.linear_probe import probe
from alexnet.training.nonfinite import first_not_finite, not_finite_weights
from alexnet.training.optimizers import clear_gradients, make_optimizers, update_all
from alexnet.training.pretrained import LAST, layers_above, start_from
from alexnet.training.recorded_step import Outcome, Replay, changed_by_a_step, recorder
from alexnet.training.records import Records, open_records
from alexnet.training.schedules import Schedule
from alexnet.training.whitening import whiten_first_convolution

WHITENING = 2**40  # a step that no training reaches: what is drawn for the first weights is drawn for them alone
SMALLER_RATE = 0.1  # what the learning rate is multiplied by after a loss that was not finite


@dataclass
class Position:
    """Where a training stands. All of it is in the checkpoint, so that a resumed run counts on from here."""

    epoch: int = 1
    batch: int = 0  # of this epoch, done
    step: int = 0  # of all epochs, done
    loss_sum: float = 0.0  # over the images of this epoch so far
    wrong: int = 0
    seen: int = 0
    best_error: float = math.inf
    averaged: int = 0  # how many states of the network are in the average
    rollbacks: int = 0
    metrics_bytes: int = 0  # what of metrics.jsonl belongs to the steps done


class Training:
    """One training, from wherever its run folder stands to its end."""

    def __init__(
        self, run: Run, dataset: PreparedDataset, device: torch.device, checkpoint_interval: float, layout: Alone
    ) -> None:
        self.run, self.device, self.layout = run, device, layout
        self.recipe = run.config.recipe
        self.dtype = choose_precision(self.recipe.precision, device)
        self.checkpoint_interval = checkpoint_interval
        self.training: Split = dataset.split("train")
        self.validation: Split | None = dataset.split("val") if "val" in dataset.splits else None
        self.classes = dataset.classes
        self.steps_per_epoch = steps_per_epoch(self.training, self.recipe.batch_size)
        self.total_steps = self.steps_per_epoch * self.recipe.epochs
        mean = torch.from_numpy(dataset.mean_image.copy())
        if self.recipe.mean == "color":
            mean = torch.from_numpy(dataset.mean_rgb.astype(np.float32)).expand(dataset.size, dataset.size, 3)
        self.preprocess = run.config.preprocess(mean.contiguous().to(device))
        statistics = (dataset.pca_eigenvectors, dataset.pca_eigenvalues)
        self.pipeline_of = lru_cache(partial(augmentation_pipeline, self.recipe, self.preprocess, *statistics))
        self.network: AlexNet
        self.at: Position
        self.bar: Progress
        self.records: Records
        self.interrupted: Callable[[], bool]
        self.last_step: int | None = None
        self.stop_asked = self.save_due = False
        self.writer = checkpoint.Writer()
        self.stand()

    def stand(self) -> None:
        """Where the run folder says, or at the beginning."""
        self.start_anew()
        self.network = self.layout.place(self.network)
        self.optimizers = make_optimizers(self.network, self.recipe, self.taken, self.layout.rows_of_all_kernels)
        self.load()
        self.working = OptimizedNetwork(self.network, self.dtype)
        self.layout.watch(self.working)
        record = recorder(self.device) if self.layout.size == 1 else None
        self.replay: Replay | None = None
        if record is not None and self.recipe.optimizer == "paper" and self.recipe.fc_batch_size is None:
            changed = partial(changed_by_a_step, self.network, self.working.copies.values(), self.optimizers)
            self.replay = Replay(self.device, record, changed, lambda words: self.bar.note(words))
        self.underway: Outcome | None = None  # the step that was launched last, where it is not known yet

    def start_anew(self) -> None:
        """Fresh weights from the seed, nothing learned yet."""
        self.network = self.first_network()
        self.taken = layers_above(self.run.config)
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
        if self.dtype == torch.float64:
            self.network.double()

    def first_network(self) -> AlexNet:
        """The whole network with the weights that the training begins with."""
        torch.manual_seed(self.recipe.seed)
        network = self.run.config.network()
        if self.run.config.start and not checkpoint.exists(self.run.path):
            start_from(network, self.run.config)
        network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def whiten(self) -> None:
        """Let conv1 start as the principal components of the first training images, as the network will read them."""
        images_seed, network_seed = step_seeds(self.recipe.seed, WHITENING)
        batch = next(training_batches(self.training, 256, self.recipe.seed, epoch=1))
        generator = torch.Generator().manual_seed(images_seed)
        inputs = self.pipeline_of(self.recipe.color_jitter)(batch.images, generator, self.input_size())
        whiten_first_convolution(self.network, inputs, torch.Generator().manual_seed(network_seed))

    def run_to_end(self, last_step: int | None = None) -> None:
        """Train until the last epoch, or step `last_step`, is done; on Ctrl-C save and raise `KeyboardInterrupt`."""
        self.saved_at = time.monotonic()
        total = self.recipe.epochs * len(self.training)
        done = (self.at.epoch - 1) * len(self.training) + self.at.seen
        with (
            interrupt_flag() as interrupted,
            open_records(self.run.path, self.at.metrics_bytes, self.at.step, leads=self.layout.leads) as self.records,
            progress(total, "training", done, silent=not self.layout.leads) as self.bar,
        ):
            self.interrupted, self.last_step = interrupted.is_set, last_step
            with self.writer:
                self.run_epochs()
            self.layout.leave()
        if self.at.epoch > self.recipe.epochs:
            self.say_end()
        elif self.stop_asked or interrupted.is_set():
            self.say_how_to_go_on()
            raise KeyboardInterrupt

    def run_epochs(self) -> None:
        """All epochs that are left, or as far as the training is to go, and the last checkpoint."""
        if self.at.step == 0 and self.validation is not None:
            self.report(overlap(self.training, self.validation))
        if self.taken and self.layout.leads and not checkpoint.exists(self.run.path):
            self.say_what_is_known()
        while self.at.epoch <= self.recipe.epochs and not self.stopping():
            self.run_epoch()
        self.save_if_finite()

    def say_what_is_known(self) -> None:
        """How far what was taken over goes without training it: a linear classifier on the topmost layer of it."""
        assert self.run.config.start is not None
        layer = [name for name in self.run.config.start["layers"] if name != LAST][-1]
        network = self.first_network().eval()  # whole, and in float32, where this process's may be neither
        known = probe(network, self.preprocess, self.training, self.validation, layer, self.dtype)
        if known is not None:
            self.bar.note(f"with what is already known: {known.words()}; training on")
            self.records.write("probe", step=self.at.step, **dataclasses.asdict(known))

    def run_epoch(self) -> None:
        """The rest of the epoch that the training stands in, as far as it gets."""
        recipe, start, seen_before = self.recipe, time.monotonic(), self.at.seen
        batches = training_batches(
            *(self.training, recipe.batch_size, recipe.seed, self.at.epoch, self.at.batch),
            *(self.layout.rows, self.device),
        )
        before: dict[str, Tensor] = {}
        for batch in batches:
            last = self.at.batch + 1 == self.steps_per_epoch
            if last:
                before = {name: weight.detach().clone() for name, weight in self.layer_weights()}
            if not self.step(batch):
                return  # back at the last good state, which may lie in another epoch
            if (last or self.stopping() or self.save_due) and not self.catch_up():
                return
            if last:
                break
            if self.stopping():
                return
            if self.save_due and not self.save_if_finite():
                return
        wild = not_finite_weights(self.network, self.layout.any)
        if wild:
            self.go_back(f"first in {wild}")
            return
        rate = (self.at.seen - seen_before) / max(time.monotonic() - start, 1e-9)
        self.end_epoch(before, batch, rate, time.monotonic() - start)
        if self.save_due:
            self.save()

    def step(self, batch: Batch) -> bool:
        """One batch through the network and one update; False when the training had to go back instead."""
        at = self.at
        for optimizer in self.optimizers:
            self.schedule.apply(optimizer, at.epoch, at.step)
        self.network.train()
        seed = step_seeds(self.recipe.seed, at.step)[1]
        if self.replay is not None:
            before, self.underway = self.underway, self.launch(batch, seed, self.replay)
            self.advance()
            return before is None or self.learned_late(before)
        torch.manual_seed(seed)
        blocks = self.layout.blocks(len(batch.labels))
        value, wrong = self.learn_in_blocks(batch, blocks) if blocks else self.learn(batch)
        if not math.isfinite(value):
            inputs = self.inputs(batch)
            where = first_not_finite(self.network, inputs, self.device, self.dtype, self.layout.any)
            self.go_back(f"first in {where}")
            return False
        self.layout.finish()
        update_all(self.optimizers, self.working.copies)
        self.advance()
        self.count(at.step, len(batch.labels), value, wrong)
        return True

    def advance(self) -> None:
        """One step further, whatever came of it."""
        self.at.step += 1
        self.at.batch += 1
        self.update_average()

    def count(self, step: int, images: int, value: float, wrong: int) -> None:
        """Take in loss and mistakes of the training's step number `step`, from 1."""
        at = self.at
        at.seen += images
        at.loss_sum += value * images
        at.wrong += wrong
        if step % max(1, self.steps_per_epoch // 20) == 0:
            self.records.write("step", epoch=at.epoch, step=step, loss=value, lr=self.rate(step))
            self.records.draw(step, {"loss/step": value})
        self.report(self.health.after_step(step, value))
        self.bar.advance(
            images,
            epoch=f"{at.epoch}/{self.recipe.epochs}",
            loss=f"{at.loss_sum / at.seen:.3f}",
            error=f"{at.wrong / at.seen:.1%}",
        )

    def launch(self, batch: Batch, seed: int, replay: Replay) -> Outcome:
        """The same, without waiting for what comes of it: a graphics card goes on to the next step meanwhile."""
        input_size, count = self.input_size(), len(batch.labels)
        rates = tuple(group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups)
        inputs = (batch.images, self.layout.begin(batch), *self.augmentation_parameters(batch))
        totals = replay((count, input_size, rates), partial(self.learn_and_update, input_size), inputs, seed)
        return Outcome.of(totals, self.at.step + 1, count)

    @torch.enable_grad()
    def learn_and_update(self, input_size: int, images: Tensor, labels: Tensor, *parameters: Tensor) -> Tensor:
        """A whole step on the device: its loss and mistakes (2,), whatever they are."""
        clear_gradients(self.optimizers, self.working.copies)  # a recording that failed may have left some
        logits = self.working(self.pipeline.apply(images, parameters, input_size, self.dtype))
        loss = self.loss(logits, labels)
        loss.backward()
        update_all(self.optimizers, self.working.copies)
        return torch.stack([loss.detach().double(), (logits.argmax(1) != labels).sum().double()])

    def catch_up(self) -> bool:
        """Wait for the step that was launched last; False when the training had to go back instead."""
        last, self.underway = self.underway, None
        return last is None or self.learned_late(last)

    def learned_late(self, outcome: Outcome) -> bool:
        """Take in what came of a step, after the next was launched; False when the training had to go back instead."""
        value, wrong = self.agree(*outcome.read())
        if not math.isfinite(value):
            self.go_back("seen in the loss")
            return False
        self.count(outcome.step, outcome.images, value, wrong)
        return True

    def input_size(self) -> int:
        """That of the images which the network reads in this step."""
        return self.schedule.input_size(self.at.step) or self.run.config.input_size

    @property
    def pipeline(self) -> AugmentationPipeline:
        """The augmentations of this epoch."""
        return self.pipeline_of(self.schedule.color(self.at.epoch))

    def augmentation_parameters(self, batch: Batch) -> tuple[Tensor, ...]:
        """Augmentation parameters of a batch in this step, drawn from the step's seed."""
        generator = torch.Generator().manual_seed(step_seeds(self.recipe.seed, self.at.step)[0])
        return self.pipeline.draw(len(batch.labels), generator, batch.rows)

    def inputs(self, batch: Batch) -> Tensor:
        """What the network reads of a batch in this step.

        Nobody keeps them, so that during the backward pass their memory is free; asked again they are the same.
        """
        images = batch.images.to(self.device)
        return self.pipeline.apply(images, self.augmentation_parameters(batch), self.input_size(), self.dtype)

    def learn(self, batch: Batch) -> tuple[float, int]:
        """Loss and mistakes of a batch; where the loss is finite, with gradients in the weights."""
        labels = self.layout.begin(batch).to(self.device)
        logits = self.working(self.inputs(batch))
        loss = self.layout.share(self.loss(logits, labels), labels)
        value, wrong = self.agree(loss.item(), _mistakes(logits, labels))
        if math.isfinite(value):
            loss.backward()
        return value, wrong

    def learn_in_blocks(self, batch: Batch, blocks: list[Block]) -> tuple[float, int]:
        """The same where the fully connected layers see a block of the batch at a time.

        With `fc_batch_size` they are updated after each block, by its mean gradient; the convolutions after the batch.
        """
        self.layout.begin(batch)
        labels, often = batch.labels.to(self.device), self.recipe.fc_batch_size is not None
        entry = self.network.get_submodule(ENTRY)
        activations = self.working.below(self.inputs(batch), entry)
        passing = self.layout.passing_of(activations, blocks)
        value, wrong = 0.0, 0
        for number, block in enumerate(blocks):
            self.layout.enter(block)
            arrived, of_block = passing.arrived(number).requires_grad_(), labels[block.images]
            logits = self.working.beyond(arrived, entry)
            share = len(of_block) / len(labels)
            loss = self.loss(logits, of_block)
            (loss if often else loss * share).backward()
            assert arrived.grad is not None
            passing.give_back(number, arrived.grad * share if often else arrived.grad)
            value, wrong = value + loss.item() * share, wrong + _mistakes(logits, of_block)
            if often:
                update_all(self.optimizers, self.working.copies)
        gradient = passing.finish()
        value, wrong = self.agree(value, wrong)
        if math.isfinite(value):
            activations.backward(gradient)
        return value, wrong

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of some images."""
        logits = logits.float() if logits.dtype == torch.bfloat16 else logits
        return functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def agree(self, value: float, wrong: int) -> tuple[float, int]:
        """Loss and mistakes of the whole batch; and let all processes know whether to stop, and to save."""
        due = time.monotonic() - self.saved_at > self.checkpoint_interval and not self.writer.busy
        value, wrong, self.stop_asked, self.save_due = self.layout.totals(value, wrong, self.interrupted(), due)
        return value, wrong

    def stopping(self) -> bool:
        """Whether the training is to end after this step."""
        return self.stop_asked or self.at.step == self.last_step

    def end_epoch(self, before: dict[str, Tensor], batch: Batch, rate: float, seconds: float) -> None:
        """Validate, look at every layer, let the schedule act, write it all down."""
        at = self.at
        loss, error = at.loss_sum / at.seen, at.wrong / at.seen
        mean = self.layout.mean
        layers = [
            LayerUpdate(name, mean(name, weight.detach().abs()), mean(name, (weight.detach() - before[name]).abs()))
            for name, weight in self.layer_weights()
        ]
        validation = self.validate()
        self.layout.begin(batch)
        dead = dead_units(self.network.eval(), self.center(batch), self.layout.alive)
        judged = error if validation is None else validation.error
        learning_rate = self.rate(at.step)
        dropped = self.schedule.after_epoch(judged)
        findings = self.health.after_epoch(
            at.epoch, train_loss=loss, train_error=error, validation=validation, layers=layers, dead=dead
        )
        record: dict[str, Any] = {
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
        curves = {
            "loss/train": loss,
            "error/train": error,
            "rate/images_per_second": rate,
            "rate/learning": learning_rate,
            **{f"weight/{layer.name}": layer.weight for layer in layers},
            **{f"update/{layer.name}": layer.update for layer in layers},
        }
        if validation is not None:
            record |= {"validation_loss": validation.loss, "validation_error": validation.error}
            words += f"  |  validation loss {validation.loss:.4f}  error {validation.error:.2%}"
            curves |= {"loss/validation": validation.loss, "error/validation": validation.error}
        words += f"  |  lr {learning_rate:.2g}  {rate:.0f} images/s"
        self.bar.note(words)
        if dropped:
            self.bar.note("the error has stopped improving: learning rate divided by ten")
        traffic = self.layout.traffic()
        if traffic:
            record["traffic"] = {name: {"bytes": size, "seconds": time} for name, (size, time) in traffic.items()}
            self.bar.note(_traffic_words(traffic, self.steps_per_epoch, seconds))
        self.records.write("epoch", **record)
        self.records.draw(at.step, curves)
        if at.epoch == self.recipe.epochs and validation is not None and self.layout.leads:
            self.records.flush()
            for known in self.run.metrics("probe"):
                findings += worse_than_known(known, validation.error, self.recipe)
        self.report(findings)
        if judged < at.best_error:
            at.best_error = judged
            if validation is not None or self.recipe.keep == "best":
                self.save_best()
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
            working = OptimizedNetwork(network, self.dtype)
        loss, wrong = 0.0, 0
        predicted = torch.zeros(len(self.classes), dtype=torch.int64)
        for batch in evaluation_batches(self.validation, self.recipe.batch_size, self.layout.rows):
            labels = self.layout.begin(batch).to(self.device)
            logits = working(self.center(batch)).float()
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            answers = logits.argmax(1)
            wrong += int((answers != labels).sum())
            predicted += torch.bincount(answers.cpu(), minlength=len(self.classes))
        count, summed = len(self.validation), self.layout.summed
        loss, wrong = summed(torch.tensor(loss, dtype=torch.float64)).item(), int(summed(torch.tensor(wrong)))
        predicted = summed(predicted)
        return EpochValidation(loss / count, wrong / count, predicted.tolist(), self.validation.class_counts)

    def center(self, batch: Batch) -> Tensor:
        """The central crops of a batch, as the plain network reads them."""
        crops = self.preprocess.center(batch.images.to(self.device))
        return crops.double() if self.dtype == torch.float64 else crops

    @torch.no_grad()
    def update_average(self) -> None:
        """Take the network into the running mean of the last part of the run, a hundred times or every step."""
        first = self.total_steps - round(self.recipe.weight_averaging * self.total_steps)
        if not self.recipe.weight_averaging or self.at.step <= first:
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
        """After numbers that are not finite, `where`, in words: to the last good state, once, and on more slowly."""
        step = self.at.step
        if self.schedule.scale != 1.0:
            kind = AlexNetError if self.layout.leads else ReportedElsewhereError
            raise kind(
                f"numbers not finite at step {step}, {where}, with a tenth of the learning rate too: "
                f"train with a smaller one, such as --lr {self.recipe.lr * 0.01:g}, or with --recipe small"
            )
        self.writer.finish()
        self.stand()
        self.schedule.scale = SMALLER_RATE
        self.at.rollbacks += 1
        self.bar.note(
            f"numbers not finite at step {step}, {where}: back to step {self.at.step}, "
            "with a tenth of the learning rate"
        )
        self.records.cut(self.at.metrics_bytes)
        self.bar.done = (self.at.epoch - 1) * len(self.training) + self.at.seen
        self.save()

    def save_if_finite(self) -> bool:
        """`save`; False when the weights are not finite and the training had to go back instead."""
        wild = not_finite_weights(self.network, self.layout.any)
        if wild:
            self.go_back(f"first in {wild}")
            return False
        self.save()
        return True

    def save(self) -> None:
        """The checkpoint, and the last weights where others than the run itself can read them, beside the training."""
        self.at.metrics_bytes = self.records.keep()
        self.saved_at, self.save_due = time.monotonic(), False
        self.write_weights("last", self.optimizers)

    def save_best(self) -> None:
        """The weights that the training has to show so far, as the best."""
        self.write_weights("best", None)

    def write_weights(self, which: str, optimizers: list[torch.optim.Optimizer] | None) -> None:
        """Begin to write the "best" or "last" weights, and with `optimizers` the checkpoint, as all stands now."""
        if not self.layout.keeps:
            return
        state = {
            "position": dataclasses.asdict(self.at),
            "schedule": self.schedule.state_dict(),
            "health": self.health.state_dict(),
        }
        content = checkpoint.Content.of(self.network, optimizers or [], self.average, state)

        def work() -> None:
            self.layout.whole(content)
            if self.layout.leads:
                self.run.save_weights(which, content.average or content.network, self.preprocess.mean)
                if optimizers is not None:
                    checkpoint.write(self.run.path, content)

        self.writer.start(work)

    def load(self) -> None:
        """Stand where the checkpoint stands, if there is one."""
        found = None
        if self.layout.leads:
            device = self.device if self.layout.size == 1 else torch.device("cpu")  # from where it goes to the others
            found = checkpoint.read(self.run.path, device, self.optimizers)
        found = self.layout.parts(found)
        if found is None:
            return
        found.restore(self.network, self.optimizers)
        self.average, state = found.average, found.state
        self.at = Position(**state["position"])
        self.schedule.load_state_dict(state["schedule"])
        self.health.load_state_dict(state["health"])

    def say_how_to_go_on(self) -> None:
        """After Ctrl-C."""
        notify(
            f"stopped after step {self.at.step} of {self.total_steps}; "
            f"go on with: alexnet train {self.run.config.dataset['path']} --out {self.run.path} --resume"
        )

    def say_end(self) -> None:
        """The closing line."""
        path = self.run.path
        words = f"trained {self.recipe.epochs} epochs; best error {self.at.best_error:.2%}"
        words += " on the validation images" if self.validation is not None else " on the training images"
        notify(f"{words}; {path}")

    def rate(self, step: int) -> float:
        """The learning rate of the weights at the training's step number `step`, from 1."""
        return self.schedule.rate(self.at.epoch, max(0, step - 1), "logits")

    def layer_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and weights of each layer that has some."""
        for name, module in self.network.named_children():
            if isinstance(module, Weighted):
                yield name, module.weight

    def report(self, findings: list[Finding]) -> None:
        """Say what is wrong, and write it down."""
        for finding in findings:
            self.bar.note(f"! {finding.message}; {finding.remedy}")
            self.records.write("finding", step=self.at.step, **dataclasses.asdict(finding))


def _traffic_words(traffic: dict[str, list[float]], steps: int, seconds: float) -> str:
    """What an epoch has sent and waited for, in a line."""
    size, waited = (sum(values[number] for values in traffic.values()) for number in (0, 1))
    largest = sorted(traffic.items(), key=lambda entry: -entry[1][0])[:4]
    named = ", ".join(f"{name} {values[0] / steps / 1e6:.2f}" for name, values in largest)
    return f"sent {size / steps / 1e6:.2f} MB a step ({named}); waited {waited / max(seconds, 1e-9):.0%} of the time"


def _mistakes(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(1) != labels).sum())
