"""Neighbours against brute force."""

from pathlib import Path

import numpy as np
import torch

from alexnet import PreparedDataset, Run
from alexnet.show import neighbours


def test_nearest_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    stored, queries = (rng.normal(0, 1, (n, 64)).astype(np.float32) for n in (500, 7))
    rows, distances = neighbours.nearest(queries, stored, 5)
    exact = np.sqrt(((queries[:, None].astype(np.float64) - stored[None]) ** 2).sum(-1))
    np.testing.assert_array_equal(rows, exact.argsort(axis=1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :5], rtol=1e-5)


def test_a_picture_is_nearest_to_itself_and_fewer_than_asked_are_all_there_are() -> None:
    stored = np.random.default_rng(2).normal(0, 1, (4, 16)).astype(np.float32)
    rows, distances = neighbours.nearest(stored, stored, 6)
    assert rows.shape == (4, 4)
    np.testing.assert_array_equal(rows[:, 0], np.arange(4))
    assert not distances[:, 0].any()


def test_features_are_the_activations_of_fc7(run: Run, striped_data: Path) -> None:
    split = PreparedDataset.open(striped_data).split("train")
    network, preprocess = run.load()
    indices = np.array([5, 0, 23])
    done: list[int] = []
    found = neighbours.fc7_features(network, preprocess, split, indices, done=done.append)
    x = preprocess.centre(torch.from_numpy(np.stack([split[int(i)][0] for i in indices])))
    with torch.inference_mode():
        for name, module in network.named_children():
            x = module(x)
            if name == "relu7":
                break
    np.testing.assert_allclose(found, x.numpy(), rtol=1e-5, atol=1e-6)
    assert found.shape == (3, 4096)
    assert sum(done) == 3


def test_labels_that_differ_are_red() -> None:
    pictures = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    figure = neighbours.neighbours(pictures, ["cat"], pictures[None].repeat(2, 1), [["cat", "dog"]])
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts[2:]}
    assert colours["dog"] == neighbours.RED
    assert len(figure.axes[0].images) == 3
