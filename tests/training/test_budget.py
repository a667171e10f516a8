"""The budget of a training: the plan, the change of its schedule, and the linear classifier that may be kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import alexnet
from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.evaluate import evaluate
from alexnet.runs.recipe import Recipe, as_seconds, recipes
from alexnet.runs.run import Run
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.training import budget, loop, train
from alexnet.training.budget import Cost, Work, describe, epochs_that_fit, plan, planned_seconds, usual_plan
from alexnet.training.linear_classifier import fit_linear_classifier
from alexnet.training.schedules import Schedule

SMALL = recipes()["small"]
WORK = Work(steps=31, images=1968, validation=0, input_size=195, pretrained=True)
COST = Cost({131: 0.5, 195: 1.0}, image=0.004)
SHORT: dict = {"variant": "convolutions", "crop_size": 64, "input_size": 67, "early_input_size": None, "batch_size": 12}


# Durations.


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("8h", 28800), ("1.5h", 5400), (" 2 m", 120), (45, 45), (0.5, 0.5)]
)
def test_a_budget_is_a_number_with_its_unit_or_seconds(text: str | float, seconds: float) -> None:
    assert as_seconds(text) == seconds
    assert SMALL.override({"budget": text}).budget == seconds


@pytest.mark.parametrize("text", ["300", "5x", "m", "-5m", "0s", "1h30m", 0, -1, float("nan"), float("inf")])
def test_any_other_budget_is_refused(text: str | float) -> None:
    with pytest.raises(UsageError, match=r"give a number above 0 with its unit, such as 90s, 5m or 8h"):
        SMALL.override({"budget": text})


def test_a_budget_chooses_the_epochs(striped_data: Path, tmp_path: Path, command: Callable) -> None:
    arguments = ("train", striped_data, "--out", tmp_path / "run", "--budget", "5m")
    for more, message in (
        (("--epochs", 3), "budget and epochs are both given"),
        (("--schedule", "plateau"), "schedule is 'plateau', and a budget needs one that ends with it"),
        (("--recipe", "released-2012"), "schedule is 'by-hand'"),
    ):
        done = command(*arguments, *more)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    with pytest.raises(UsageError, match="budget is for a single process"):
        alexnet.train(striped_data, tmp_path / "run", parallel="data", budget="5m")
    assert not (tmp_path / "run").exists()


# The plan.


def seconds_of(chosen: budget.Plan, work: Work, cost: Cost, recipe: Recipe = SMALL) -> float:
    """The time of a plan, added up step by step."""
    changed = recipe.override(chosen.changes)
    size = changed.input_size or work.input_size
    total = work.before(cost) + work.after(cost)
    for step in range(changed.epochs * work.steps):
        early = changed.early_input_size and step < changed.early_share * changed.epochs * work.steps
        total += cost.step[changed.early_input_size if early else size]
    return total + changed.epochs * work.validation * cost.image


@pytest.mark.parametrize("validation", [0, 500])
@pytest.mark.parametrize("speed", [0.1, 1.0, 7.0])
def test_a_plan_takes_nearly_the_budget_and_never_more(validation: int, speed: float) -> None:
    work = Work(31, 1968, validation, 195, pretrained=True)
    cost = Cost({size: seconds * speed for size, seconds in COST.step.items()}, COST.image * speed)
    methods = []
    for seconds in np.geomspace(20, 50_000, 60).tolist():
        chosen = plan(SMALL, work, cost, seconds, linear=True)
        methods.append(chosen.method)
        if chosen.method == budget.LINEAR:
            continue
        taken = seconds_of(chosen, work, cost)
        assert taken == pytest.approx(chosen.seconds, rel=0.03)
        assert taken <= seconds
        if chosen.changes["epochs"] not in (SMALL.epochs, budget.LONGEST * SMALL.epochs):
            one = chosen.seconds / chosen.changes["epochs"]
            assert taken >= 0.95 * seconds - one - 1
    assert [name for name, _ in itertools.groupby(methods)] == [budget.LINEAR, budget.SHORT, budget.USUAL, budget.LONG]
    assert chosen.changes == {"epochs": 4 * SMALL.epochs}


def test_a_short_plan_has_the_small_input_throughout() -> None:
    chosen = plan(SMALL, WORK, COST, 250, linear=True)
    assert chosen.method == budget.SHORT
    assert chosen.changes["input_size"] == 131
    assert chosen.changes["early_input_size"] is None
    assert 3 <= chosen.changes["epochs"] < SMALL.epochs


def test_without_pretrained_features_a_short_budget_is_one_epoch_or_an_error() -> None:
    scratch = Work(31, 1968, 0, 195, pretrained=False)
    assert plan(SMALL, scratch, COST, 30, linear=False).changes["epochs"] == 1
    with pytest.raises(AlexNetError, match=r"the budget of 20 s is too short: one epoch of 1,968 images .* 16 s.*1m"):
        plan(SMALL, scratch, COST, 20, linear=False)


def test_the_estimate_is_said_in_one_line() -> None:
    usual = usual_plan(SMALL, WORK, COST)
    assert usual.seconds == pytest.approx(seconds_of(usual, WORK, COST))
    assert describe(usual, SMALL, WORK, 195) == (
        "about 9:29 min on this machine: 25 epochs of 31 steps at 131 pixels for 60% of the training, then at 195"
    )
    limited = SMALL.override({"budget": "10s"})
    linear = plan(limited, WORK, COST, 10, linear=True)
    assert describe(linear, limited, WORK, 195).startswith("about 35 s, more than the budget of 10 s on this machine: ")


def test_a_budget_that_the_longest_training_leaves_unused_is_said_with_its_use() -> None:
    overnight, an_hour = SMALL.override({"budget": "8h"}), SMALL.override({"budget": "1h"})
    unused = plan(overnight, WORK, COST, 8 * 3600, linear=True)
    used = plan(an_hour, WORK, COST, 3600, linear=True)
    assert unused.method == used.method == budget.LONG
    assert "`--networks`" in describe(unused, overnight, WORK, 195)
    assert "`--networks`" not in describe(used, an_hour, WORK, 195)


# The schedule.


def test_a_changed_schedule_goes_on_from_where_it_is_to_the_same_end() -> None:
    recipe = SMALL.override({"epochs": 20, "frozen_share": 0.6})
    schedule, before = Schedule(recipe, 10), Schedule(recipe, 10)
    schedule.change_epochs(11, 50)
    assert (schedule.total_steps, schedule.share(50), schedule.share(110)) == (110, 0.25, 1.0)
    rates = [schedule.lr(step, "fc6") for step in range(50, 110)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(before.lr(50, "fc6"), rel=0.03)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    # 60% of the training: 35 of the remaining 75 points of 60 steps.
    sizes = [schedule.input_size(step) for step in range(110)]
    assert sizes == [131] * 78 + [None] * 32
    restored = Schedule(recipe.override({"epochs": 11}), 10)
    restored.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert [restored.lr(step, "fc6") for step in range(110)] == [schedule.lr(step, "fc6") for step in range(110)]


@pytest.mark.parametrize("slower", [0.6, 1.0, 1.6, 2.5])
@pytest.mark.parametrize("changes_at", [0, 6])
def test_a_slower_or_faster_machine_keeps_the_budget_within_a_fifth(slower: float, changes_at: int) -> None:
    seconds = 900.0
    chosen = plan(SMALL, WORK, COST, seconds, linear=True)
    recipe = SMALL.override(chosen.changes)
    schedule = Schedule(recipe, WORK.steps)
    elapsed, epoch, slowdowns = WORK.before(COST), 0, []
    while epoch < schedule.epochs:
        epoch += 1
        factor = slower if epoch > changes_at else 1.0
        steps = range((epoch - 1) * WORK.steps, epoch * WORK.steps)
        taken = factor * sum(COST.step[schedule.input_size(step) or 195] for step in steps)
        elapsed += taken
        slowdowns.append(taken / planned_seconds(schedule, WORK, COST, epoch))
        if epoch < schedule.epochs:
            slowdown = float(np.mean(slowdowns[-3:]))
            left = budget.PLANNED * seconds - elapsed - slowdown * WORK.after(COST)
            epochs = epochs_that_fit(
                schedule, WORK, COST, epoch=epoch, slowdown=slowdown, left=left, longest=budget.LONGEST * 25
            )
            if epochs != schedule.epochs:
                schedule.change_epochs(epochs, epoch * WORK.steps)
    elapsed += slower * WORK.after(COST)
    assert slowdowns == pytest.approx([1.0] * min(changes_at, epoch) + [slower] * (epoch - changes_at), rel=0.02)
    assert 0.8 * seconds <= elapsed <= 1.2 * seconds
    assert schedule.lr(schedule.total_steps - 1, "fc6") == pytest.approx(0, abs=1e-12)


# Trainings.


@pytest.fixture
def forty_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every budget of 1,000 seconds is planned as forty epochs."""
    monkeypatch.setattr(train, "measure_cost", lambda *_: Cost({67: 11.5}, image=0.0))


def shortened(run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, stop: int | None) -> Run:
    """A training of which forty epochs are planned, and only three made after the first was too slow."""

    def three(schedule: Schedule, *_: object, epoch: int, **__: object) -> int:
        return 3 if epoch == 1 else schedule.epochs

    monkeypatch.setattr(loop, "epochs_that_fit", three)
    options = {"budget": 1000.0, "seed": 3, **SHORT}
    if stop is None:
        return alexnet.train(data, run, **options)
    train.set_up_training(data, run, **options).train(stop)
    assert Run.open(run).config.recipe.epochs == 3
    return alexnet.train(data, run, resume=True, budget="1000s")


@pytest.mark.long
@pytest.mark.usefixtures("forty_epochs")
def test_a_shortened_training_is_finished_and_resumed_with_its_decision(
    striped_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shortened(tmp_path / "whole", striped_data, monkeypatch, stop=None)
    said = capsys.readouterr().err
    assert "40 epochs of 2 steps at 67 pixels" in said
    assert "3 epochs instead of 40 keep the budget of 16:40 min; from here on the learning rate falls faster" in said
    assert (whole.config.recipe.epochs, len(whole.metrics("epoch")), whole.finished) == (3, 3, True)
    (change,) = whole.metrics("schedule")
    assert (change["step"], change["epochs"], change["epochs_before"]) == (2, 3, 40)
    assert whole.config.plan is not None
    assert whole.config.plan["cost"] == {"step": {"67": 11.5}, "image": 0.0}
    resumed = shortened(tmp_path / "resumed", striped_data, monkeypatch, stop=3)
    mine, other = (run.load()[0].state_dict() for run in (whole, resumed))
    assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.usefixtures("forty_epochs")
def test_the_linear_classifier_is_kept_where_it_is_better(
    striped_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "epochs_that_fit", lambda *_, **__: 2)
    run = alexnet.train(striped_data, tmp_path / "run", budget=1000.0, lr=1e-9, **SHORT)
    (record,) = run.metrics("linear-classifier")
    assert record["validation_error"] < record["trained_validation_error"]
    assert (
        "the linear classifier on the pretrained features is kept: its validation accuracy is"
        in capsys.readouterr().err
    )
    found = evaluate(tmp_path / "run", striped_data, split="val", views=1)
    assert found.accuracy == pytest.approx(1 - record["validation_error"])


def test_a_budget_for_nothing_else_fits_a_linear_classifier(
    striped_data: Path, tmp_path: Path, command: Callable
) -> None:
    sizes = ("--crop-size", 64, "--input-size", 67, "--early-input-size", 67, "--variant", "convolutions")
    done = command("train", striped_data, "--out", tmp_path / "run", "--budget", "1s", *sizes)
    assert done.returncode == 0, done.stderr
    assert "too short for a fine-tuning; a linear classifier on the pretrained features" in done.stderr
    run = Run.open(tmp_path / "run")
    assert (run.config.recipe.variant, run.finished) == ("convolutions", True)
    found = evaluate(tmp_path / "run", striped_data, split="val", views=1)
    assert found.accuracy == pytest.approx(1 - run.metrics("epoch")[-1]["validation_error"])
    assert found.accuracy > 0.9


@pytest.mark.usefixtures("forty_epochs")
@pytest.mark.parametrize("option", [{"class_weights": "balanced"}, {"sampler": "balanced"}])
def test_where_images_do_not_count_alike_there_is_no_linear_classifier(
    striped_data: Path, tmp_path: Path, option: dict[str, str]
) -> None:
    with pytest.raises(AlexNetError, match="too short: one epoch"):
        train.set_up_training(striped_data, tmp_path / "run", budget="1s", **SHORT, **option)
    assert not (tmp_path / "run").exists()
    training = train.set_up_training(striped_data, tmp_path / "run", budget="1s", **SHORT)
    assert training.is_linear


def test_the_output_layer_is_the_regression_of_scikit_learn(striped_data: Path, tmp_path: Path) -> None:
    training = train.set_up_training(striped_data, tmp_path / "run", init="starter", **SHORT)
    split = PreparedDataset.open(striped_data).split("train")
    config, preprocess = training.run.config, training.preprocess
    pretrained = training.state.network.eval()

    def flipped(images: torch.Tensor) -> torch.Tensor:
        return preprocess.center(images).flip(3)

    found = fit_linear_classifier(pretrained, config, preprocess, flipped, split, torch.float32)
    crops = preprocess.center(torch.from_numpy(np.array(split.gather(np.arange(len(split))))))
    with torch.no_grad():
        both = torch.cat([crops, crops.flip(3)])
        maps = pretrained.get_submodule("fit")(pretrained.features(both, "pool5"))
        cells = torch.nn.functional.avg_pool2d(maps, 2).flatten(1).numpy()
        probabilities = found.network(crops).softmax(1).numpy()
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, tol=1e-3, max_iter=1000))
    labels = np.tile(split.labels, 2)
    reference.fit(cells, labels)
    assert probabilities == pytest.approx(reference.predict_proba(cells[: len(split)]), abs=2e-3)
    assert found.error == pytest.approx((reference.predict(cells) != labels).mean())
