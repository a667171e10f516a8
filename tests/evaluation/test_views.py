"""Test views against crops taken by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.cli.main import main
from alexnet.data.augmentation import Preprocessing
from alexnet.evaluation.inference import crops, probabilities
from alexnet.evaluation.shared_views import can_share, shared_logits
from alexnet.evaluation.views import VIEWS
from alexnet.network.model import AlexNet
from alexnet.network.optimized import OptimizedNetwork
from alexnet.runtime.errors import AlexNetError, UsageError

SIZE, CROP, COUNT, CLASSES = 31, 24, 5, 4


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def mean() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture
def preprocess(mean: np.ndarray) -> Preprocessing:
    return Preprocessing(torch.from_numpy(mean), CROP, 1 / 64)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * CROP * CROP, CLASSES)).eval()


def crops_by_hand(images: np.ndarray, mean: np.ndarray) -> list[np.ndarray]:
    """Four corners and the center of every image minus the mean, each with its horizontal flip (paper, section 4.1)."""
    centered = (images.astype(np.float64) - mean) / 64
    far, middle = SIZE - CROP, (SIZE - CROP) // 2
    five = [
        centered[:, :CROP, :CROP],
        centered[:, :CROP, far:],
        centered[:, far:, :CROP],
        centered[:, far:, far:],
        centered[:, middle : middle + CROP, middle : middle + CROP],
    ]
    return [view for crop_size in five for view in (crop_size, crop_size[:, :, ::-1])]


def test_ten_views_are_the_ten_crops_taken_by_hand(images, mean, preprocess) -> None:
    views = list(crops(torch.from_numpy(images), preprocess, 10))
    assert len(views) == 10
    for view, by_hand in zip(views, crops_by_hand(images, mean), strict=True):
        np.testing.assert_allclose(view.numpy().transpose(0, 2, 3, 1), by_hand, atol=1e-5)


def test_released_views_are_minus_the_mean_of_the_center(images, mean) -> None:
    released = Preprocessing(torch.from_numpy(mean), CROP, 1 / 64, mean_of_center=True)
    middle = (SIZE - CROP) // 2
    center = mean[middle : middle + CROP, middle : middle + CROP]
    pixels = crops_by_hand(images, np.zeros_like(mean))
    for view, by_hand in zip(crops(torch.from_numpy(images), released, 10), pixels, strict=True):
        np.testing.assert_allclose(view.numpy().transpose(0, 2, 3, 1), by_hand - center / 64, atol=1e-5)


def test_nine_views_are_a_grid_of_three_by_three(images, mean, preprocess) -> None:
    centered = (images.astype(np.float64) - mean) / 64
    far, middle = SIZE - CROP, (SIZE - CROP) // 2
    views = list(crops(torch.from_numpy(images), preprocess, 9))
    places = [(top, left) for top in (0, middle, far) for left in (0, middle, far)]
    for view, (top, left) in zip(views, places, strict=True):
        by_hand = centered[:, top : top + CROP, left : left + CROP]
        np.testing.assert_allclose(view.numpy().transpose(0, 2, 3, 1), by_hand, atol=1e-5)


def test_the_symmetries_of_a_square_are_all_flips_and_rotations(images, mean, preprocess) -> None:
    centered, middle = (images.astype(np.float64) - mean) / 64, (SIZE - CROP) // 2
    crop = centered[:, middle : middle + CROP, middle : middle + CROP]
    by_hand = [np.rot90(side, turns, (1, 2)) for side in (crop, crop[:, :, ::-1]) for turns in range(4)]
    views = [view.numpy().transpose(0, 2, 3, 1) for view in crops(torch.from_numpy(images), preprocess, 8)]
    assert len(views) == 8
    for expected in by_hand:
        assert sum(np.allclose(view, expected, atol=1e-5) for view in views) == 1


@pytest.mark.parametrize("views", [8, 10])
def test_only_the_symmetries_of_a_square_answer_alike_however_the_image_lies(network, views) -> None:
    """The margin is even, so that the center crop lies in the middle; the mean is a color, as in the recipe small."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, CROP + 6, CROP + 6, 3), dtype=np.uint8)
    color = Preprocessing(torch.full((CROP + 6, CROP + 6, 3), 99.0), CROP, 1 / 64)
    found = probabilities(network, color, torch.from_numpy(images), views)
    turned = probabilities(network, color, torch.from_numpy(np.rot90(images, 1, (1, 2)).copy()), views)
    assert torch.allclose(found, turned, atol=1e-6) == (views == 8)


def test_one_view_is_the_center(images, mean, preprocess) -> None:
    (view,) = crops(torch.from_numpy(images), preprocess, 1)
    np.testing.assert_allclose(view.numpy().transpose(0, 2, 3, 1), crops_by_hand(images, mean)[8], atol=1e-5)


@pytest.mark.parametrize(("views", "which"), [(10, slice(None)), (1, slice(8, 9))])
def test_probabilities_are_the_mean_of_the_softmax_outputs(images, mean, preprocess, network, views, which) -> None:
    weight, bias = (p.detach().double().numpy() for p in network[1].parameters())
    shares = []
    for crop_size in crops_by_hand(images, mean)[which]:
        logits = crop_size.transpose(0, 3, 1, 2).reshape(COUNT, -1) @ weight.T + bias
        powers = np.exp(logits - logits.max(1, keepdims=True))
        shares.append(powers / powers.sum(1, keepdims=True))
    result = probabilities(network, preprocess, torch.from_numpy(images), views)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), np.mean(shares, axis=0), atol=1e-6)


def test_without_a_margin_there_is_one_crop() -> None:
    assert VIEWS[10].offsets(64, 64) == [(0, 0)]
    assert VIEWS[10].offsets(256, 224) == [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    assert VIEWS[1].offsets(256, 227) == [(14, 14)]


def test_log_loss_is_finite_at_any_confidence(preprocess, images) -> None:
    sure = nn.Sequential(nn.Flatten(), nn.Linear(3 * CROP * CROP, 2)).eval()
    with torch.no_grad():
        sure[1].weight.zero_()
        sure[1].bias.copy_(torch.tensor([0.0, 600.0]))
    result = probabilities(sure, preprocess, torch.from_numpy(images), 1)
    np.testing.assert_allclose(np.log(result[:, 0].numpy()), -600)


@pytest.mark.parametrize(
    ("variant", "size", "crop_size"),
    [
        ("paper", 256, 224),
        ("paper", 163, 131),
        *(pytest.param(*sizes, marks=pytest.mark.long) for sizes in (("caffe", 256, 224), ("paper", 160, 144))),
    ],
)
def test_views_that_share_the_first_layers_equal_ten_separate_views(variant, size, crop_size) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8))
    mean = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (size, size, 3)).astype(np.float32))
    torch.manual_seed(0)
    network = AlexNet(variant, CLASSES, init="he").to(memory_format=torch.channels_last).eval()
    torch.nn.init.normal_(network.logits.weight, 0, 0.05)
    preprocess = Preprocessing(mean, crop_size, 1 / 64)
    working = OptimizedNetwork(network)
    assert can_share(working, preprocess)
    with torch.inference_mode():
        separate = torch.stack([network(crop) for crop in crops(images, preprocess, 10)])
        shared = torch.stack(list(shared_logits(working, preprocess, images, VIEWS[10].offsets(size, crop_size))))
    assert separate.std() > 0.1
    torch.testing.assert_close(shared, separate, rtol=1e-4, atol=1e-4)
    assert torch.equal(probabilities(working, preprocess, images, 10), shared.double().softmax(-1).mean(0))


@pytest.mark.parametrize(
    ("variant", "crop_size", "side"), [("paper", 227, None), ("paper", 224, 195), ("one-weird-trick", 224, None)]
)
def test_views_that_can_not_share_the_first_layers_are_recognized(variant, crop_size, side) -> None:
    preprocess = Preprocessing(torch.zeros(256, 256, 3), crop_size, 1.0, side)
    assert not can_share(OptimizedNetwork(AlexNet(variant, 2)), preprocess)


def test_bfloat16_is_near_float32() -> None:
    torch.manual_seed(0)
    network = AlexNet("paper", CLASSES, init="he").to(memory_format=torch.channels_last).eval()
    torch.nn.init.normal_(network.logits.weight, 0, 0.01)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 163, 163, 3), dtype=np.uint8))
    preprocess = Preprocessing(torch.full((163, 163, 3), 128.0), 131, 1 / 64)
    exact = probabilities(OptimizedNetwork(network), preprocess, images)
    rounded = probabilities(OptimizedNetwork(network, torch.bfloat16), preprocess, images)
    assert 0 < float((exact - rounded).abs().max()) < 0.02


def test_another_number_of_views_is_a_usage_error(preprocess, images) -> None:
    with pytest.raises(UsageError, match=r"views is 5.*1: .*9: .*10: "):
        list(crops(torch.from_numpy(images), preprocess, 5))


def test_the_command_line_lists_the_views_of_the_table(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"--views {{{','.join(map(str, VIEWS))}}}" in printed
    assert "; ".join(f"{number}: {views.description}" for number, views in VIEWS.items()) in printed


def test_nan_in_the_outputs_is_an_error(preprocess, images, network) -> None:
    with torch.no_grad():
        network[1].bias[0] = float("nan")
    with pytest.raises(AlexNetError, match="NaN or Inf"):
        probabilities(network, preprocess, torch.from_numpy(images), 1)
