"""`alexnet reproduce towers` in its quick form, and its two measures against values known otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet import AlexNet
from alexnet.cli.main import main
from alexnet.experiments.towers import UNTRAINED, permutation_p, saturation, verdict


def test_the_quick_form_measures_the_saturation_of_each_tower(
    striped_folder: Callable[..., Path], tmp_path: Path
) -> None:
    images = striped_folder(12, 12, 64)
    assert main(["reproduce", "towers", "--quick", "--data", str(images), "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "towers.json").read_text(encoding="utf-8"))
    (run,) = report["runs"]
    for kind in ("kernels", "learned", "untrained"):
        found, each = run[kind], run[kind]["each"]
        assert len(each) == 96
        assert found["towers"] == pytest.approx([np.mean(each[:48]), np.mean(each[48:])], abs=1e-4)
        assert report[kind]["difference"]["mean"] == pytest.approx(abs(found["towers"][0] - found["towers"][1]))
    # So little training leaves the kernels almost as they were drawn.
    assert run["untrained"]["towers"] == pytest.approx([UNTRAINED, UNTRAINED], abs=0.02)
    assert run["kernels"]["each"] != run["untrained"]["each"]
    assert run["kernels"]["each"] == pytest.approx(run["untrained"]["each"], abs=0.05)
    assert run["learned"]["towers"] != pytest.approx([UNTRAINED, UNTRAINED], abs=0.02)
    assert (tmp_path / "towers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("given", [[], ["--data", "a", "--data", "b"]])
def test_it_requires_one_set_of_color_photographs(given: list[str], tmp_path: Path, capsys) -> None:
    assert main(["reproduce", "towers", "--out", str(tmp_path / "out"), *given]) == 2
    assert "color photographs" in capsys.readouterr().err


def test_saturation_of_kernels_that_are_known() -> None:
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(4, 1, 11, 11, generator=generator)
    gray = pattern.expand(4, 3, 11, 11)
    opponent = pattern * torch.tensor([1.0, -1.0, 0.0])[:, None, None]  # red against green: no gray in it
    assert saturation(gray) == pytest.approx(np.zeros(4), abs=1e-7)
    assert saturation(opponent) == pytest.approx(np.ones(4))
    # A pure red kernel: its projection on (1, 1, 1)/√3 has a third of its energy.
    red = pattern * torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert saturation(red) == pytest.approx(np.full(4, (2 / 3) ** 0.5))
    assert saturation(7 * red) == pytest.approx(saturation(red))


def test_untrained_kernels_have_the_saturation_of_independent_values() -> None:
    torch.manual_seed(0)
    network = AlexNet("convolutions", 2, init="he")
    assert saturation(network.conv1.weight.detach()).mean() == pytest.approx(UNTRAINED, abs=0.01)


def test_p_agrees_with_all_permutations() -> None:
    values = np.random.default_rng(0).normal(size=12)
    values[:6] += 0.8
    differences = []
    for dealt in combinations(range(12), 6):
        mask = np.isin(np.arange(12), dealt)
        differences.append(abs(values[mask].mean() - values[~mask].mean()))
    exact = np.mean(np.array(differences) >= abs(values[:6].mean() - values[6:].mean()) - 1e-12)
    assert 0.005 < exact < 0.3
    assert permutation_p(values) == pytest.approx(exact, abs=0.005)
    assert permutation_p(values) == permutation_p(values)


def test_p_of_towers_that_differ_completely_and_not_at_all() -> None:
    assert permutation_p(np.repeat([0.1, 0.9], 48)) < 1e-4
    assert permutation_p(np.tile([0.1, 0.9], 48)) == 1.0


def test_the_verdict_counts_the_statistically_significant_seeds() -> None:
    text = verdict([0.3, 0.1, 0.02], [1e-5, 0.04, 0.5])
    assert text == "the saturation of the towers differs by 0.14; statistically significant in 2 of 3 seeds (p < 0.05)"
