"""Figure 1 of the paper: a four-layer network on CIFAR-10 trains several times faster with ReLU than with tanh."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.experiments.cifar import cifar10, source_description
from alexnet.experiments.trials import measure_once, write_with_figure
from alexnet.report.style import BLUE, INK, MUTED, Figure, drawn, new
from alexnet.runs.run import Run, is_free
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import notify
from alexnet.runtime.provenance import provenance
from alexnet.training.train import RunFinishedError, set_up_training

TARGET, EPOCHS, PATIENCE = 0.25, 60, 10
"""Target training error; largest number of epochs; epochs after which a trial that is behind another stops."""
QUICK_TARGET, QUICK_EPOCHS = 0.88, 3
ACTIVATIONS = ("relu", "tanh")
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Learning rates. The search moves from the middle one until neither neighbor reaches the target earlier."""
CHANGES: dict[str, Any] = {"normalization": "none", "weight_decay": 0.0, "layer_weight_decay": (), "events": ()}
"""The network of cuda-convnet's 18pct without normalization and without regularization."""


@dataclass(frozen=True)
class Trials:
    """The trials of one activation function; each ends when its training error reaches `target`."""

    data: Path
    work: Path
    activation: str
    target: float
    limit: int
    rates: tuple[float, ...] = RATES

    def curve(self, rate: float, seed: int, rival: Sequence[float] = ()) -> dict[str, Any]:
        """Return the training error of each epoch, and the epoch at which it reached `target` (None if never).

        The error of an epoch is the mean over its batches during training and is assigned to the middle of the epoch.
        The trial stops if it is behind `rival`, the errors of another trial, after `PATIENCE` epochs or later.
        """
        name = f"{self.activation}-{rate:g}-{seed}"
        return measure_once(self.work / f"{name}.json", lambda: self._measure(self.work / name, rate, seed, rival))

    def best_rate(self, seed: int) -> tuple[float, dict[str, Any]]:
        """Return the learning rate that reaches the target first, and the curves of all rates that were tried."""
        tried: dict[int, dict[str, Any]] = {}

        def order(place: int) -> tuple[float, float]:
            if place not in tried:
                rival = tried[min(tried, key=order)]["errors"] if tried else ()
                tried[place] = self.curve(self.rates[place], seed, rival)
            return tried[place]["epochs"] or math.inf, min(tried[place]["errors"], default=1.0)

        place = len(self.rates) // 2
        for direction in (1, -1):
            while 0 <= place + direction < len(self.rates) and order(place + direction) < order(place):
                place += direction
        if tried[place]["epochs"] is None:
            raise AlexNetError(
                f"{self.activation}: no learning rate reaches a training error of {self.target:.0%} within "
                f"{self.limit} epochs"
            )
        return self.rates[place], {f"{self.rates[place]:g}": tried[place] for place in sorted(tried)}

    def _measure(self, run: Path, rate: float, seed: int, rival: Sequence[float]) -> dict[str, Any]:
        notify(f"{run.name}:")
        values = {**CHANGES, "activation": self.activation, "lr": rate, "seed": seed, "epochs": self.limit}
        try:
            training = set_up_training(self.data, run, recipe="cifar-18pct", resume=not is_free(run), **values)
        except RunFinishedError as finished:
            return self._result(finished.run)
        errors = _errors(training.run)
        while (
            min(errors, default=1.0) > self.target and not _diverged(training.run) and not self._beaten(errors, rival)
        ):
            try:
                training.train((len(errors) + 1) * training.steps_per_epoch)
            except AlexNetError:  # diverged with a tenth of the learning rate too
                break
            errors = _errors(training.run)
        return self._result(training.run)

    def _result(self, run: Run) -> dict[str, Any]:
        # A rollback changes the learning rate, so the trial no longer measures this one.
        errors, diverged = _errors(run), _diverged(run)
        return {"errors": errors, "epochs": None if diverged else crossing(errors, self.target), "diverged": diverged}

    def _beaten(self, errors: Sequence[float], rival: Sequence[float]) -> bool:
        if not rival or len(errors) >= self.limit:
            return len(errors) >= self.limit
        behind = len(errors) > len(rival) or (bool(errors) and errors[-1] > rival[len(errors) - 1])
        return behind and len(errors) >= min(PATIENCE, len(rival))


def reproduce(
    work: Path, results: Path, seeds: Sequence[int], command: str, data: Sequence[str] = (), quick: bool = False
) -> str:
    """Find the best learning rate of each activation with the first seed, train with every seed, and compare.

    Returns a summary of one line.
    """
    dataset = cifar10(work, data, quick)
    target, limit, rates = (QUICK_TARGET, QUICK_EPOCHS, RATES[4:6]) if quick else (TARGET, EPOCHS, RATES)
    found: dict[str, dict[str, Any]] = {}
    for activation in ACTIVATIONS:
        trials = Trials(dataset.path, work, activation, target, limit, rates)
        rate, tried = trials.best_rate(seeds[0])
        curves = {str(seed): trials.curve(rate, seed) for seed in seeds}
        epochs = [curve["epochs"] for curve in curves.values()]
        if None in epochs:
            raise AlexNetError(f"{activation} at learning rate {rate:g}: one of the seeds does not reach {target:.0%}")
        found[activation] = {
            "rate": rate,
            "epochs": statistics.mean(epochs),
            "standard_deviation": statistics.stdev(epochs) if len(epochs) > 1 else None,
            "curves": curves,
            "search": tried,
        }
    ratios = [
        found["tanh"]["curves"][str(seed)]["epochs"] / found["relu"]["curves"][str(seed)]["epochs"] for seed in seeds
    ]
    report = {
        "description": f"epochs of a four-layer network on CIFAR-10 until its training error is {target:.0%}, no "
        "regularization, each activation at its best learning rate; ratio of tanh to ReLU",
        "ratio": found["tanh"]["epochs"] / found["relu"]["epochs"],
        "ratio_of_each_seed": ratios,
        "published_ratio": 6.0,
        "target": target,
        "images": source_description(data),
        "seeds": list(seeds),
        "changes": {"recipe": "cifar-18pct", **CHANGES},
        **found,
        **provenance(command),
    }
    write_with_figure(results, report, figure(report))
    return (
        f"{target:.0%} training error after {found['relu']['epochs']:.1f} epochs with ReLU, "
        f"{found['tanh']['epochs']:.1f} with tanh: {report['ratio']:.1f} times as many (published: 6)"
    )


def crossing(errors: Sequence[float], target: float) -> float | None:
    """Return the epoch at which the error reaches `target`, by linear interpolation; None if it never does."""
    for number, error in enumerate(errors):
        if error <= target:
            before = errors[number - 1] if number else error
            back = (target - error) / (before - error) if before > error else 0.0
            return number + 0.5 - back
    return None


@drawn
def figure(report: dict[str, Any]) -> Figure:
    """Training error against epochs, ReLU as a solid and tanh as a dashed line, as in the paper."""
    drawing = new(3.4)
    axes = drawing.subplots()
    for activation, color, style, name in (("relu", BLUE, "-", "ReLU"), ("tanh", INK, "--", "tanh")):
        for number, curve in enumerate(report[activation]["curves"].values()):
            epochs = [epoch + 0.5 for epoch in range(len(curve["errors"]))]
            label = f"{name}, learning rate {report[activation]['rate']:g}" if number == 0 else None
            axes.plot(epochs, curve["errors"], style, color=color, linewidth=1.4, label=label)
    axes.axhline(report["target"], color=MUTED, linewidth=0.8)
    axes.set_ylim(0, 0.75)
    axes.set_xlim(left=0)
    axes.set_xlabel("Epochs")
    axes.set_title("Training error rate")
    axes.legend()
    return drawing


def _diverged(run: Run) -> bool:
    """Whether the training was rolled back after a divergence."""
    return bool(run.metrics("rollback"))


def _errors(run: Run) -> list[float]:
    return [epoch["train_error"] for epoch in run.metrics("epoch")]
