"""One small trained run, and its evaluation on the validation images."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet import Evaluation, Run, evaluate, recipes, train
from alexnet.runs.recipe import Event


@pytest.fixture(scope="session")
def run(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two epochs of four steps on 24 images; the learning rate is lowered when the second begins."""
    recipe = recipes()["paper"].override(
        {"init": "he", "pixel_scaling": "std", "crop_size": 64, "normalization": "batch"}
    )
    changes = {"epochs": 2, "batch_size": 6, "lr": 0.001, "precision": "float32", "weight_averaging": 0.0}
    by_hand = {"schedule": "by-hand", "events": (Event(2, lr=0.0001),)}
    path = tmp_path_factory.mktemp("shown") / "run"
    yield train(striped_data, path, recipe=recipe.override(by_hand), device="cpu", keep_checkpoint=True, **changes)
    for file in ("model.safetensors", "last.safetensors", "checkpoint.pt"):
        (path / file).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def evaluation(run: Run, striped_data: Path) -> Evaluation:
    return evaluate(run.path, striped_data, views=1, recall=0.9, device="cpu")
