"""Searched coefficients against scipy's minimizer."""

import numpy as np
import pytest
from scipy.optimize import minimize

from alexnet.evaluation.ensemble import optimal_coefficients
from alexnet.evaluation.predictor import require_same_classes
from alexnet.runtime.errors import AlexNetError


def log_loss(weights: np.ndarray, p: np.ndarray) -> float:
    return float(-np.log(p @ weights).mean())


@pytest.mark.parametrize("members", [2, 5, 7])
def test_coefficients_have_the_smallest_log_loss(members: int) -> None:
    rng = np.random.default_rng(members)
    p = rng.beta(2, 1, (400, 1)) ** rng.uniform(0.2, 3, (400, members)) * np.linspace(0.6, 1, members)
    found = optimal_coefficients(p)
    reference = minimize(
        *(log_loss, np.full(members, 1 / members), (p,)),
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert log_loss(found, p) <= reference.fun + 2e-6


def test_a_member_that_only_worsens_the_average_has_coefficient_zero() -> None:
    p = np.random.default_rng(0).uniform(0.5, 1, 200)
    np.testing.assert_allclose(optimal_coefficients(np.stack([p, 0.5 * p], 1)), [1, 0], atol=1e-4)


def test_equal_members_have_equal_coefficients_with_probabilities_of_zero_too() -> None:
    p = np.random.default_rng(0).uniform(0, 1, 200)
    p[:3] = 0
    np.testing.assert_allclose(optimal_coefficients(np.stack([p, p, p], 1)), [1 / 3] * 3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["cat", "cow"], r"only a has 'dog', only b has 'cow'"),
        (["cat", "dog", "eel"], r"only b has 'eel'"),
        (["dog", "cat"], "another order"),
    ],
)
def test_different_classes_are_named(other: list[str], message: str) -> None:
    with pytest.raises(AlexNetError, match=message):
        require_same_classes(["cat", "dog"], "a", other, "b", "so it is")
    require_same_classes(["cat", "dog"], "a", ["cat", "dog"], "b", "so it is")
