"""The recipes as data."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from alexnet.runs.recipe import SMALL_STEPS, Recipe, choose_recipe, recipes
from alexnet.runtime.errors import UsageError


def test_the_paper_recipe_is_section_5():
    recipe = recipes()["paper"]
    assert (recipe.batch_size, recipe.lr, recipe.momentum, recipe.weight_decay) == (128, 0.01, 0.9, 0.0005)
    assert (recipe.epochs, recipe.lr_drops, recipe.crop_size, recipe.color_jitter) == (90, 3, 224, 0.1)
    assert (recipe.optimizer, recipe.schedule, recipe.flip) == ("paper", "plateau", "horizontal")


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_survives_json(name):
    recipe = recipes()[name]
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(("images", "name"), [(2, "small"), (12, "small"), (20_000, "small"), (20_001, "paper")])
def test_auto_chooses_by_the_number_of_images_and_gives_the_reason(images, name):
    recipe, reason = choose_recipe("auto", images)
    assert recipe.name == name
    assert f"{images:,}" in reason


@pytest.mark.parametrize("images", [2, 3, 12, 65, 200, 2000, 20_000])
def test_small_has_enough_steps_and_several_of_them_in_an_epoch(images):
    recipe, _ = choose_recipe("small", images)
    steps = -(-images // recipe.batch_size)
    assert steps * recipe.epochs >= SMALL_STEPS
    assert recipe.batch_size <= 64
    assert steps >= 3 or images < 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1}, "unknown recipe value 'learning_rate'; choose from"),
        ({"flip": "rotate"}, "flip is 'rotate'; choose from: none, horizontal, square"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"lr": -1.0}, "lr is -1.0; it must be above 0"),
        ({"lr": float("nan")}, "lr is nan; it must be above 0"),
        ({"weight_averaging": 1.5}, "weight_averaging is 1.5"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        recipes()["small"].override(changes)


def test_an_unknown_recipe_is_refused_with_the_names_of_all():
    with pytest.raises(UsageError, match="auto, paper, released-2012, released-2012-pretrained, small"):
        choose_recipe("tiny", 10)


def test_every_option_of_the_command_line_has_a_help_with_its_value_in_the_paper_recipe():
    for field in dataclasses.fields(Recipe):
        if "help" in field.metadata:
            assert re.search(r"\(paper: .+\)$", field.metadata["help"]), field.name


def test_recipes_are_listed_without_torch():
    code = "import sys; from alexnet.runs.recipe import recipes; recipes(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
