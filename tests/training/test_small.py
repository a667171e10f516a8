"""The recipe `small` learns at once: well below guessing within a tenth of a run (`test_demo.py` trains by it, too)."""

import math

import pytest

from alexnet.data.preparation import prepare
from alexnet.training.train import set_up_training


@pytest.mark.parametrize(
    ("lying", "standing", "seed"),
    [(6, 6, 0), (6, 6, 1), (2, 38, 0)],
)
@pytest.mark.long
def test_the_loss_is_well_below_guessing_after_a_tenth_of_the_run(striped_folder, tmp_path, lying, standing, seed):
    data = tmp_path / "data"
    prepare(striped_folder(lying, standing, size=256, splits=("train",)), data, progress=False)
    training = set_up_training(data, tmp_path / "run", recipe="small", seed=seed)
    tenth = training.total_steps // 10
    training.train(tenth)
    losses = [step["loss"] for step in training.run.metrics("step")]
    assert len(losses) == tenth
    shares = [count / (lying + standing) for count in (lying, standing)]
    guessing = -sum(share * math.log(share) for share in shares)
    assert sum(losses[-10:]) / 10 < 0.7 * guessing
