"""Schedules of the learning rate and of the PCA color augmentation."""

import json

import pytest

from alexnet.network.model import AlexNet
from alexnet.runs.recipe import recipes
from alexnet.training.optimizers import make_optimizers
from alexnet.training.schedules import Schedule


def test_plateau_divides_by_ten_three_times_and_no_more():
    recipe = recipes()["paper"].override({"patience": 2})
    schedule = Schedule(recipe, steps_per_epoch=10)
    errors = [0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    dropped, rates = [], []
    for epoch, error in enumerate(errors, 1):
        rates.append(schedule.lr(epoch * 10, "conv1"))
        if schedule.after_epoch(error):
            dropped.append(epoch)
    assert dropped == [4, 7, 9]
    assert rates == pytest.approx([0.01] * 4 + [0.001] * 3 + [0.0001] * 2 + [0.00001] * 4)


def test_by_hand_follows_the_released_log():
    schedule = Schedule(recipes()["released-2012"], steps_per_epoch=10)

    def rates(epoch):
        first = (epoch - 1) * 10
        return schedule.lr(first, "conv1"), schedule.lr(first, "fc6"), schedule.color_std(epoch)

    assert rates(1) == rates(24) == (0.01, 0.01, 0.1)
    assert rates(25) == rates(50) == (0.001, 0.001, 0.1)
    assert rates(51) == rates(66) == (0.0001, 0.0001, 0.1)
    assert rates(67) == rates(71) == (0.00001, 0.0001, 0.0)
    assert rates(72) == rates(78) == (0.0, 0.0001, 0.0)
    assert rates(79) == rates(91) == (0.0, 0.00001, 0.0)


def test_pretrained_layers_are_unfrozen_as_in_2012():
    """Configuration #146: conv1 at 0.0001, the others at 0.001, the last layer at 0.01 after 300 batches."""
    schedule = Schedule(recipes()["released-2012-pretrained"], steps_per_epoch=1000)
    rates = [[schedule.lr(step, layer) for layer in ("conv1", "conv5", "logits")] for step in (0, 299, 300, 999)]
    assert rates == [[0.0001, 0.001, 0.001]] * 2 + [[0.0001, 0.001, 0.01]] * 2


def test_loaded_layers_are_frozen_at_first():
    recipe = recipes()["small"].override(
        {"frozen_share": 0.5, "epochs": 1, "pretrained_lr_scale": 0.5, "layer_lr_decay": 0.1}
    )
    network = AlexNet("paper", 2, normalization="batch")
    optimizers = make_optimizers(network, recipe, {"conv1": 1, "batch1": 1, "conv2": 0})
    schedule = Schedule(recipe, steps_per_epoch=10)

    def rates(step):
        for optimizer in optimizers:
            schedule.apply(optimizer, step)
        groups = {group["layer"]: group["lr"] for optimizer in optimizers for group in optimizer.param_groups}
        base = schedule.lr(step, "conv1") * recipe.muon_lr_scale
        return [groups[layer] / base for layer in ("conv1", "conv2", "conv3")]

    assert rates(4) == [0.0, 0.0, 1.0]
    assert rates(5) == pytest.approx([0.05, 0.5, 1.0])


def test_cosine_rises_then_falls_to_zero():
    recipe = recipes()["small"].override({"epochs": 10, "warmup": 0.1, "lr": 1.0})
    schedule = Schedule(recipe, steps_per_epoch=10)
    rates = [schedule.lr(step, "fc6") for step in range(100)]
    assert rates[9] == max(rates) == pytest.approx(1.0)
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_a_schedule_continues_from_its_saved_state():
    recipe = recipes()["paper"].override({"patience": 2})
    errors = [0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.7, 0.7]
    undisturbed, first = Schedule(recipe, 10), Schedule(recipe, 10)
    for error in errors:
        undisturbed.after_epoch(error)
    for error in errors[:6]:
        first.after_epoch(error)
    second = Schedule(recipe, 10)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for error in errors[6:]:
        second.after_epoch(error)
    assert second.state_dict() == undisturbed.state_dict()
