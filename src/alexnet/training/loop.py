"""The training loop: one for the CPU and for GPUs, for the paper's recipe and for all others."""

from __future__ import annotations

import dataclasses
import math
import shlex
import statistics
import threading
import time
from contextlib import nullcontext
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.data.loading import Batch, step_seeds, steps_per_epoch, training_batches
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.parallel.communicator import Communicator
from alexnet.parallel.layouts import parallelize
from alexnet.runs import checkpoint
from alexnet.runs.lock import RunLock
from alexnet.runs.run import FINISHED, Run
from alexnet.runtime.devices import choose_precision
from alexnet.runtime.errors import AlexNetError, ReportedElsewhereError
from alexnet.runtime.interrupts import interrupt_flag
from alexnet.runtime.progress import format_duration, notify
from alexnet.training.budget import LINEAR, PLANNED, Cost, Work, epochs_that_fit, planned_seconds
from alexnet.training.diagnostics import Diagnostics, EpochValidation, dead_units
from alexnet.training.divergence import Diverged, diverged, is_divergent, nonfinite_weights
from alexnet.training.findings import overlap, single_step, worse_than_pretrained
from alexnet.training.input_pipeline import augmentation_pipeline
from alexnet.training.linear_classifier import LinearClassifier, can_fit, fit_linear_classifier
from alexnet.training.linear_probe import probe
from alexnet.training.optimizers import make_optimizers
from alexnet.training.pretrained import load_pretrained, pretrained_depths
from alexnet.training.reporting import EpochSummary, Reporter, open_reporter
from alexnet.training.sample_weights import class_masses, described, training_targets
from alexnet.training.schedules import Schedule
from alexnet.training.state import TrainingState
from alexnet.training.steps import StepExecutor, StepResult, TrainingInputs, step_executor
from alexnet.training.stored_weights import store_weights
from alexnet.training.validation import central_crops, layer_updates, measure, validate
from alexnet.training.whitening import whiten_first_convolution

WHITENING_STEP = 2**40  # no training has as many steps: the seed of the whitening is used for nothing else
ROLLBACK_SCALE = 0.1  # factor of the learning rate after a divergence


class Training:
    """One training, from its run folder's checkpoint, or from the beginning, to its end.

    Parameters
    ----------
    run : Run
        The run folder.
    dataset : PreparedDataset
        What is trained on.
    device : torch.device
        Where.
    communicator : Communicator
        The layout of the training, and the exchange with the other processes.
    checkpoint_interval : float
        Seconds between two checkpoints.
    keep_checkpoint : bool
        Whether a finished run keeps its checkpoint.
    lock : RunLock, optional
        Held by `train`; in the process that writes to the run folder.
    began : float, optional
        When the time of a budget began, by `time.monotonic`. Default: now.
    """

    def __init__(
        self,
        run: Run,
        dataset: PreparedDataset,
        device: torch.device,
        communicator: Communicator,
        *,
        checkpoint_interval: float = 120.0,
        keep_checkpoint: bool = False,
        lock: RunLock | None = None,
        began: float | None = None,
    ) -> None:
        self.began = time.monotonic() if began is None else began
        self.run, self.device, self.communicator = run, device, communicator
        self.recipe = run.config.recipe
        self.dtype = choose_precision(self.recipe.precision, device)
        self.checkpoint_interval, self.keep_checkpoint, self.lock = checkpoint_interval, keep_checkpoint, lock
        self.training: Split = dataset.split("train")
        self.validation: Split | None = dataset.split("val") if "val" in dataset.splits else None
        self.steps_per_epoch = steps_per_epoch(self.training, self.recipe.batch_size)
        self.targets = training_targets(self.training, self.recipe, dataset.classes)
        self.work = Work(
            self.steps_per_epoch,
            len(self.training),
            0 if self.validation is None else len(self.validation),
            run.config.input_size,
            run.config.start is not None,
        )
        self.slowdowns: list[float] = []  # of the epochs of this process, against the plan of a budget
        mean = torch.from_numpy(dataset.mean_image.copy())
        if self.recipe.mean == "color":
            mean = torch.from_numpy(dataset.mean_rgb.astype(np.float32)).expand(dataset.size, dataset.size, 3)
        self.preprocess = run.config.preprocess(mean.contiguous().to(device))
        statistics = (dataset.pca_eigenvectors, dataset.pca_eigenvalues)
        self.inputs = TrainingInputs(
            lru_cache(partial(augmentation_pipeline, self.recipe, self.preprocess, *statistics)),
            self.recipe,
            run.config.input_size,
            device,
            self.dtype,
        )
        self.writer = checkpoint.Writer()
        self.saved_at = time.monotonic()
        self.interrupted = threading.Event()
        self.state = self.load_state()
        self.before = self.state.counters.seconds  # of the budget, in the processes before this one
        if self.communicator.leads and self.epochs != self.recipe.epochs:  # stopped before config.json had them
            self.run = self.run.with_recipe_value("epochs", self.epochs)

    @property
    def epochs(self) -> int:
        """Epochs of the training."""
        return self.state.schedule.epochs

    @property
    def total_steps(self) -> int:
        """Steps of the training."""
        return self.state.schedule.total_steps

    # Set-up.

    def load_state(self) -> TrainingState:
        """The state in the checkpoint; without one, the state before the first step."""
        pretrained = pretrained_depths(self.run.config)
        network = self.initial_network()
        if self.recipe.whiten and network.first_convolution not in pretrained:
            self.whiten(network)
        if self.dtype == torch.float64:
            network.double()
        network = parallelize(network, self.communicator)
        optimizers = make_optimizers(network, self.recipe, pretrained, self.communicator.gather_kernels)
        working = OptimizedNetwork(network, self.dtype)
        self.communicator.register(working)
        state = TrainingState(
            network,
            working,
            optimizers,
            Schedule(self.recipe, self.steps_per_epoch),
            Diagnostics(
                self.run.config.classes,
                self.training.class_counts,
                self.recipe,
                self.steps_per_epoch,
                train=self.training,
                validation=self.validation,
                class_masses=self.class_masses(),
            ),
        )
        content = None
        if self.communicator.leads:
            device = (
                self.device if self.communicator.size == 1 else torch.device("cpu")
            )  # from there to the other processes
            content = checkpoint.read(self.run.path, device, optimizers)
        content = self.communicator.scatter(content)
        if content is not None:
            state.restore(content)
        return state

    def class_masses(self) -> list[float] | None:
        """How much each class counts in the loss; None: as many times as it has images."""
        if self.targets is None and self.recipe.sampler == "random":
            return None
        return class_masses(self.training, self.recipe, self.targets)

    def initial_network(self) -> AlexNet:
        """The whole network with its initial weights."""
        torch.manual_seed(self.recipe.seed)
        network = self.run.config.network()
        if self.run.config.start and not checkpoint.exists(self.run.path):
            load_pretrained(network, self.run.config)
        network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def whiten(self, network: AlexNet) -> None:
        """Initialize conv1 with the principal components of the first training images, as the network reads them."""
        images_seed, network_seed = step_seeds(self.recipe.seed, WHITENING_STEP)
        batch = next(training_batches(self.training, 256, self.recipe.seed, epoch=1))
        pipeline = self.inputs.pipeline_of(self.recipe.color_jitter)
        size = Schedule(self.recipe, self.steps_per_epoch).input_size(0) or self.run.config.input_size
        inputs = pipeline(batch.images, torch.Generator().manual_seed(images_seed), size)
        whiten_first_convolution(network, inputs, torch.Generator().manual_seed(network_seed))

    # The loop.

    def train(self, last_step: int | None = None) -> None:
        """Train until the last epoch, or until step `last_step`, is done.

        Raises `KeyboardInterrupt` after Ctrl-C, with everything saved, and `AlexNetError` where the training diverges
        with a tenth of the learning rate too.
        """
        counters, images = self.state.counters, len(self.training)
        self.saved_at = time.monotonic()
        with (
            self.lock or nullcontext(),
            interrupt_flag() as self.interrupted,
            open_reporter(
                self.run.path,
                size=counters.metrics_bytes,
                step=counters.step,
                total=self.epochs * images,
                done=(counters.epoch - 1) * images + counters.images,
                leads=self.communicator.leads,
            ) as report,
        ):
            with self.writer:
                if self.is_linear:
                    self.train_linear_classifier(report)
                    return
                self.report_start(report)
                metrics_bytes = report.sync()
                while True:
                    try:
                        stopped = self.train_epochs(report, last_step)
                        break
                    except Diverged as divergence:
                        self.roll_back(divergence, report, metrics_bytes)
            self.communicator.leave()
        if self.state.counters.epoch > self.epochs:
            self.report_end()
            if self.interrupted.is_set():  # whoever called goes on to no further training
                raise KeyboardInterrupt("interrupted in the last step: this training is finished")
        elif stopped or self.interrupted.is_set():
            command = [
                "alexnet",
                "train",
                str(self.run.config.dataset["path"]),
                "--out",
                str(self.run.path),
                "--resume",
            ]
            notify(
                f"stopped after step {self.state.counters.step} of {self.total_steps}; continue with: "
                f"{shlex.join(command)}"
            )
            raise KeyboardInterrupt

    def train_epochs(self, report: Reporter, last_step: int | None) -> bool:
        """Train the epochs that are left, and save; returns whether a process asked to stop."""
        counters, stop = self.state.counters, False
        steps = step_executor(self.state, self.inputs, self.communicator, self.requests, report.note)
        while counters.epoch <= self.epochs and not stop and counters.step != last_step:
            stop = self.train_epoch(steps, report, last_step)
        if counters.epoch > self.epochs:
            self.finish(report)
        else:
            self.save(report)
        return stop

    def train_epoch(self, steps: StepExecutor, report: Reporter, last_step: int | None) -> bool:
        """Train the rest of the epoch; returns whether a process asked to stop."""
        state, counters, recipe = self.state, self.state.counters, self.recipe
        start, images_before = time.monotonic(), counters.images
        stop = save = False
        weights_before: dict[str, Tensor] = {}
        for batch in training_batches(
            self.training,
            recipe.batch_size,
            recipe.seed,
            counters.epoch,
            counters.batch,
            self.communicator.rows,
            self.device,
            self.targets,
            recipe.sampler,
        ):
            last = counters.batch + 1 == self.steps_per_epoch
            if last:
                weights_before = {name: weight.clone() for name, weight in state.layer_weights()}
            state.start_step()
            result = steps.step(batch)
            state.end_step()
            stop, save = self.count(result, report)
            if last or stop or save or counters.step == last_step:
                stop_late, save_late = self.count(steps.finish(), report)
                stop, save = stop or stop_late, save or save_late
            if last:
                break
            if save:
                self.save(report)
            if stop or counters.step == last_step:
                return stop
        self.end_epoch(report, batch, weights_before, counters.images - images_before, time.monotonic() - start)
        if images_before == 0:
            save = self.keep_budget(report, time.monotonic() - start) or save
        if save:
            self.save(report)
        return stop

    def count(self, result: StepResult | None, report: Reporter) -> tuple[bool, bool]:
        """Count and report a step; returns whether a process asks to stop, and whether a checkpoint is due."""
        if result is None:
            return False, False
        counters = self.state.counters
        counters.count(result.images, result.loss, result.errors)
        if result.step % max(1, self.steps_per_epoch // 20) == 0:
            report.step(counters.epoch, result.step, result.loss, self.lr_of_step(result.step))
        report.findings(self.state.diagnostics.after_step(result.step, result.loss), counters.step)
        report.bar.advance(
            result.images,
            epoch=f"{counters.epoch}/{self.epochs}",
            loss=f"{counters.loss_sum / counters.images:.3f}",
            error=f"{counters.errors / counters.images:.1%}",
        )
        return result.stop, result.save

    def end_epoch(
        self, report: Reporter, batch: Batch, weights_before: dict[str, Tensor], images: int, seconds: float
    ) -> None:
        """Validate, diagnose, report, drop the learning rate where the schedule says so, keep the best weights.

        `batch` is the last of the epoch, `images` how many were trained on in `seconds`.
        """
        self.check_weights()
        state, counters, recipe, communicator = self.state, self.state.counters, self.recipe, self.communicator
        loss, error = counters.loss_sum / counters.images, counters.errors / counters.images
        layers = layer_updates(state, weights_before, communicator.layer_mean)
        validation = None
        if self.validation is not None:
            validation = validate(state, self.validation, self.preprocess, communicator, recipe.batch_size, self.dtype)
            if communicator.any(is_divergent(validation.loss)):
                raise diverged(counters.step, validation.loss, "the validation loss")
        communicator.start_batch(batch)
        dead = dead_units(
            state.network.eval(), central_crops(batch, self.preprocess, self.dtype), communicator.alive_share
        )
        judged = error if validation is None else validation.error
        lr, dropped = self.lr_of_step(counters.step), state.schedule.after_epoch(judged)
        findings = state.diagnostics.after_epoch(
            counters.epoch, train_loss=loss, train_error=error, validation=validation, layers=layers, dead=dead
        )
        report.epoch(
            EpochSummary(
                epoch=counters.epoch,
                epochs=self.epochs,
                step=counters.step,
                loss=loss,
                error=error,
                lr=lr,
                validation=validation,
                layers=layers,
                dead=dead,
                images_per_second=images / max(seconds, 1e-9),
                seconds=seconds,
                steps=self.steps_per_epoch,
                traffic=communicator.traffic(),
            )
        )
        if dropped:
            report.note(f"no lower error for {recipe.patience} epochs: learning rate divided by ten")
        if counters.epoch == self.epochs and validation is not None and communicator.leads:
            report.flush()
            for record in self.run.metrics("probe"):
                findings += worse_than_pretrained(record, validation.error, recipe)
        report.findings(findings, counters.step)
        if judged < counters.best_error:
            counters.best_error = judged
            if validation is not None or recipe.keep == "best":
                self.write("best", checkpoint_too=False)
        counters.next_epoch()

    def keep_budget(self, report: Reporter, seconds: float) -> bool:
        """Shorten or lengthen the rest of the schedule by what the epochs take; returns whether it changed.

        `seconds`: of the epoch that has just ended. The change is saved with the next checkpoint, so that a resumed
        training makes it too.
        """
        plan, schedule, epoch = self.run.config.plan, self.state.schedule, self.state.counters.epoch - 1
        if plan is None or epoch >= schedule.epochs or self.communicator.size > 1:  # several do not measure the same
            return False
        cost = Cost.from_dict(plan["cost"])
        self.slowdowns = [*self.slowdowns[-2:], seconds / planned_seconds(schedule, self.work, cost, epoch)]
        slowdown = statistics.mean(self.slowdowns)
        budget = float(self.recipe.budget or math.inf)
        left = budget * PLANNED - self.elapsed() - slowdown * self.work.after(cost)
        before, done = schedule.epochs, epoch * self.steps_per_epoch
        epochs = epochs_that_fit(
            schedule, self.work, cost, epoch=epoch, slowdown=slowdown, left=left, longest=plan["longest"]
        )
        if epochs == before:
            return False
        schedule.change_epochs(epochs, done)
        self.run = self.run.with_recipe_value("epochs", epochs)
        report.bar.total = epochs * len(self.training)
        report.record("schedule", step=done, epochs=epochs, epochs_before=before, slowdown=slowdown)
        report.note(
            f"an epoch takes {slowdown:.2f} times what was estimated: {epochs} epochs instead of {before} keep the "
            f"budget of {format_duration(budget)}; from here on the learning rate falls "
            f"{'faster' if epochs < before else 'more slowly'}"
        )
        return True

    def elapsed(self) -> float:
        """Seconds of the budget that are spent, in all processes of this training."""
        return self.before + time.monotonic() - self.began

    def roll_back(self, divergence: Diverged, report: Reporter, metrics_bytes: int) -> None:
        """Return to the last checkpoint, with a tenth of the learning rate; an error the second time.

        `metrics_bytes`: length of metrics.jsonl before the first step of this process.
        """
        if self.state.schedule.scale != 1.0:
            kind = AlexNetError if self.communicator.leads else ReportedElsewhereError
            other = "" if self.recipe.name == "small" else ", or --recipe small"
            raise kind(
                f"{divergence}, with a tenth of the learning rate too: "
                f"train with a smaller one, such as --lr {self.recipe.lr * 0.01:g}{other}"
            )
        self.writer.finish()
        self.state = self.load_state()
        self.state.schedule.scale = ROLLBACK_SCALE
        counters = self.state.counters
        report.note(f"{divergence}; rolled back to step {counters.step}, with a tenth of the learning rate")
        report.truncate(counters.metrics_bytes or metrics_bytes)
        report.record("rollback", step=counters.step, diverged_at=divergence.step, reason=str(divergence))
        report.bar.done = (counters.epoch - 1) * len(self.training) + counters.images
        self.save(report)

    # Checkpoints.

    def requests(self) -> tuple[bool, bool]:
        """Whether Ctrl-C was pressed in this process, and whether a checkpoint is due."""
        due = time.monotonic() - self.saved_at > self.checkpoint_interval and not self.writer.busy
        return self.interrupted.is_set(), due

    def check_weights(self) -> None:
        """Raise `Diverged` where a weight is NaN or Inf."""
        layer = nonfinite_weights(self.state.network, self.communicator.any)
        if layer:
            raise diverged(self.state.counters.step, math.nan, f"the weights of {layer}")

    def save(self, report: Reporter) -> None:
        """Write the checkpoint and the last weights, while the training goes on."""
        self.check_weights()
        self.state.counters.metrics_bytes = report.sync()
        if self.recipe.budget is not None:
            self.state.counters.seconds = self.elapsed()
        self.saved_at = time.monotonic()
        self.write("last", checkpoint_too=True)

    def write(self, which: str, *, checkpoint_too: bool) -> None:
        """Start to write the "best" or "last" weights, and the checkpoint, as they are now."""
        if not self.communicator.holds_state:
            return
        content = self.state.content(optimizers=checkpoint_too)

        def work() -> None:
            self.communicator.gather(content)
            if self.communicator.leads:
                self.run.save_weights(which, content.average or content.network, self.preprocess.mean)
                if checkpoint_too:
                    checkpoint.write(self.run.path, content)

        self.writer.start(work)

    def finish(self, report: Reporter) -> None:
        """Write the last weights of a training whose epochs are done.

        What a finished run does not need, its checkpoint and the weights that the recipe does not keep, is removed,
        unless the checkpoint is kept.
        """
        if self.keep_checkpoint:
            self.save(report)
        else:
            self.check_weights()
            self.write("last", checkpoint_too=False)
        self.writer.finish()
        if self.run.config.plan is not None and self.validation is not None and can_fit(self.run.config, self.training):
            self.keep_better(report)
        self.close(report)

    def close(self, report: Reporter) -> None:
        """Store the weights in their data type, and finish the run folder."""
        if self.communicator.leads:
            self.run, message = store_weights(self.run, self.validation or self.training)
            if message:
                report.note(message)
        report.record(FINISHED, step=self.state.counters.step)
        report.sync()
        if self.communicator.leads and not self.keep_checkpoint:
            checkpoint.remove(self.run.path)
            self.run.remove_other_weights()

    def keep_better(self, report: Reporter) -> None:
        """Keep a linear classifier on the pretrained features instead, where it has fewer validation errors."""
        assert self.validation is not None
        report.flush()
        trained = self.run.metrics("epoch")[-1]["validation_error"]
        if self.recipe.keep == "best":
            trained = self.state.counters.best_error
        probed = [1 - record["accuracy"] for record in self.run.metrics("probe") if record["split"] == "val"]
        if not probed or probed[-1] >= trained:
            return
        network = self.linear_classifier().network
        error = self.measure(network, self.validation).error
        if error >= trained:
            return
        self.keep(network)
        report.record("linear-classifier", validation_error=error, trained_validation_error=trained)
        report.note(
            f"the linear classifier on the pretrained features is kept: its validation accuracy is {1 - error:.2%}, "
            f"that of the fine-tuned network {1 - trained:.2%}"
        )

    # A linear classifier on pretrained features: instead of the training, or where it is better.

    @property
    def is_linear(self) -> bool:
        """Whether the plan is a linear classifier and nothing else."""
        plan = self.run.config.plan
        return plan is not None and plan["method"] == LINEAR

    def train_linear_classifier(self, report: Reporter) -> None:
        """Fit the classifier, in place of the only epoch, and write it."""
        start = time.monotonic()
        found = self.linear_classifier()
        seconds = time.monotonic() - start
        validation = None if self.validation is None else self.measure(found.network, self.validation)
        rate = found.images / max(seconds, 1e-9)
        report.epoch(
            EpochSummary(1, 1, 0, found.loss, found.error, 0.0, validation, [], {}, rate, seconds, 1, traffic={})
        )
        report.bar.advance(len(self.training))
        self.keep(found.network)
        self.close(report)
        notify(f"a linear classifier on {found.images:,} training images; {self.run.path}")

    def linear_classifier(self) -> LinearClassifier:
        """A linear classifier on the pretrained features."""
        config = self.run.config
        network = config.network()
        load_pretrained(network, config)
        pipeline, generator = self.inputs.pipeline_of(self.recipe.color_jitter), torch.Generator()
        generator.manual_seed(step_seeds(self.recipe.seed, WHITENING_STEP)[0])
        augment = partial(pipeline, generator=generator, input_size=config.input_size)
        return fit_linear_classifier(network, config, self.preprocess, augment, self.training, self.dtype)

    def measure(self, network: AlexNet, split: Split) -> EpochValidation:
        """Loss and error of a network other than the trained one."""
        working = OptimizedNetwork(network, self.dtype)
        return measure(working, split, self.preprocess, self.communicator, self.recipe.batch_size, self.dtype)

    def keep(self, network: AlexNet) -> None:
        """Make a linear classifier the network of the run folder."""
        self.run = self.run.with_recipe_value("variant", network.variant.name)
        self.run.save_weights(self.recipe.keep, network.state_dict(), self.preprocess.mean)

    # Messages.

    def report_start(self, report: Reporter) -> None:
        """Report images that are in both splits, and a linear probe on pretrained weights, before the first step."""
        step = self.state.counters.step
        if step == 0 and self.validation is not None:
            report.findings(overlap(self.training, self.validation), step)
        if step == 0 and (found := described(self.training)):
            report.note(found)
        if step == 0 and self.total_steps == 1:
            report.findings([single_step(self.recipe, len(self.training))], step)
        start = self.run.config.start
        if start is None or not self.communicator.leads or checkpoint.exists(self.run.path):
            return
        network = self.initial_network().eval()  # whole, and in float32, where this process's may be neither
        layer = [name for name in start["layers"] if name != network.output_layer][-1]
        result = probe(network, self.preprocess, self.training, self.validation, layer, self.dtype)
        if result is not None:
            report.note(f"before training, the pretrained weights give {result.summary()}")
            report.record("probe", step=step, **dataclasses.asdict(result))

    def report_end(self) -> None:
        """Print the closing line."""
        epochs, split = self.epochs, "training" if self.validation is None else "validation"
        unit = "epoch" if epochs == 1 else "epochs"
        notify(f"trained {epochs} {unit}; best {split} error {self.state.counters.best_error:.2%}; {self.run.path}")

    def lr_of_step(self, step: int) -> float:
        """The learning rate of the weights in a step (from 1)."""
        return self.state.schedule.lr(max(0, step - 1), self.state.network.output_layer)
