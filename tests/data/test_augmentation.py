"""What training does to an image, seen from outside: images whose pixels say where they come from go in."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from alexnet.data.augmentation import Color, Preprocess, augment, draw
from alexnet.runs.recipe import Recipe, recipes

SIZE, CROP = 24, 19
SPREAD = SIZE - CROP + 1

PLAIN = recipes()["paper"].override({"color_jitter": 0.0, "crop_size": CROP})
STILL = Color(np.eye(3), np.zeros(3))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def no_mean(scale: float = 1.0) -> Preprocess:
    return Preprocess(torch.zeros(SIZE, SIZE, 3), CROP, scale)


def maps(count: int) -> torch.Tensor:
    """Images whose red is the row, green the column and blue the number of the image."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return torch.from_numpy(np.stack([np.stack([rows, columns, np.full_like(rows, i)], -1) for i in range(count)])).to(
        torch.uint8
    )


def where(batch: torch.Tensor) -> list[tuple[int, int, bool, bool, bool]]:
    """Of each crop of `maps`: top, left, and whether it is mirrored across, down, and with its axes exchanged."""
    found = []
    for crop in batch:
        row, column, number = crop.to(torch.int64)
        assert (number == number[0, 0]).all()
        transposed = bool(row[0, 0] == row[1, 0])
        if transposed:
            row, column = row.T, column.T
        down, across = bool(row[0, 0] > row[1, 0]), bool(column[0, 0] > column[0, 1])
        row, column = (m.flip(0) if down else m for m in (row, column))
        row, column = (m.flip(1) if across else m for m in (row, column))
        top, left = int(row[0, 0]), int(column[0, 0])
        rows, columns = np.mgrid[top : top + CROP, left : left + CROP]
        np.testing.assert_array_equal(row, rows)
        np.testing.assert_array_equal(column, columns)
        found.append((top, left, across, down, transposed))
    return found


def drawn(recipe: Recipe, count: int) -> list[tuple[int, int, bool, bool, bool]]:
    batch = augment(maps(1).expand(count, -1, -1, -1), no_mean(), STILL, recipe, generator())
    assert batch.shape == (count, 3, CROP, CROP)
    assert batch.dtype == torch.float32
    return where(batch)


def assert_uniform(values: list, kinds: int) -> None:
    counts = Counter(values)
    assert len(counts) == kinds
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_crops_lie_anywhere_with_equal_chance() -> None:
    assert_uniform([place[:2] for place in drawn(PLAIN, 3200)], SPREAD**2)


def test_half_of_the_crops_are_flipped_and_none_is_turned() -> None:
    found = drawn(PLAIN, 3200)
    assert_uniform([place[2] for place in found], 2)
    assert not any(down or transposed for *_, down, transposed in found)


def test_the_eight_symmetries_of_a_square_come_with_equal_chance() -> None:
    found = drawn(PLAIN.override({"flip": "square"}), 3200)
    assert_uniform([place[2:] for place in found], 8)
    assert_uniform([place[:2] for place in found], SPREAD**2)


def test_without_symmetries_and_with_the_center_nothing_is_drawn() -> None:
    recipe = PLAIN.override({"flip": "none", "crop_position": "center"})
    assert set(drawn(recipe, 50)) == {((SIZE - CROP) // 2, (SIZE - CROP) // 2, False, False, False)}


def test_images_share_a_draw_as_the_recipe_says() -> None:
    found = drawn(PLAIN.override({"images_per_draw": 32}), 320)
    assert all(len(set(found[i : i + 32])) == 1 for i in range(0, 320, 32))
    assert len(set(found)) > 5


def test_images_keep_their_order() -> None:
    batch = augment(maps(40), no_mean(), STILL, PLAIN, generator())
    np.testing.assert_array_equal(batch[:, 2, 0, 0], np.arange(40))


def test_the_mean_of_each_pixel_is_subtracted_wherever_the_crop_lies() -> None:
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    images = torch.from_numpy(np.repeat(np.round(mean)[None], 64, axis=0).astype(np.uint8))
    recipe = PLAIN.override({"flip": "square"})
    batch = augment(images, Preprocess(torch.from_numpy(mean), CROP, 1.0), STILL, recipe, generator())
    assert float(batch.abs().max()) <= 0.51


def test_released_the_mean_of_the_center_is_subtracted_from_every_crop_flipped_or_not() -> None:
    """`data -= data_mean_crop`, the released code's last step after cutting and mirroring."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    edge = (SIZE - CROP) // 2
    middle = torch.from_numpy(mean[edge : edge + CROP, edge : edge + CROP].transpose(2, 0, 1).copy())
    released = Preprocess(torch.from_numpy(mean), CROP, 1.0, mean_of_center=True)
    assert recipes()["released-2012"].mean == "center"
    batch = augment(maps(64), released, STILL, PLAIN, generator())
    plain = augment(maps(64), no_mean(), STILL, PLAIN, generator())
    torch.testing.assert_close(batch + middle, plain, atol=1e-4, rtol=0)


def test_pixels_are_scaled() -> None:
    full = augment(maps(4), no_mean(), STILL, PLAIN, generator())
    small = augment(maps(4), no_mean(1 / 64), STILL, PLAIN, generator())
    torch.testing.assert_close(small, full / 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flip", ["none", "horizontal", "square"])
@pytest.mark.parametrize("mean_of_center", [False, True])
def test_every_device_gets_the_crops_that_the_processors_machine_code_cuts(
    monkeypatch, flip, mean_of_center, dtype
) -> None:
    rng = np.random.default_rng(0)
    size, crop_size = 53, 37
    images = torch.from_numpy(rng.integers(0, 256, (21, size, size, 3), dtype=np.uint8))
    mean = torch.from_numpy(rng.uniform(0, 255, (size, size, 3)).astype(np.float32))
    preprocess = Preprocess(mean, crop_size, 1 / 60, mean_of_center=mean_of_center)
    recipe = recipes()["paper"].override({"crop_size": crop_size, "brightness": 0.2, "flip": flip})
    color = Color(np.eye(3), np.array([900.0, 90.0, 9.0]), "std")

    def batch() -> torch.Tensor:
        return augment(images, preprocess, color, recipe, generator(), dtype=dtype)

    compiled = batch()
    monkeypatch.setattr("alexnet.data.augmentation.can_cut", lambda *_: False)
    gathered = batch()
    assert compiled.dtype == gathered.dtype == dtype
    assert compiled.shape == gathered.shape == (21, 3, crop_size, crop_size)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(compiled, gathered, rtol=tolerance, atol=tolerance)


def test_one_seed_gives_one_batch() -> None:
    recipe = recipes()["paper"].override({"crop_size": CROP, "brightness": 0.2})
    color = Color(np.eye(3), np.array([900.0, 90.0, 9.0]))
    one, same, other = (augment(maps(8), no_mean(), color, recipe, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# Color (paper, section 4.1).


@pytest.fixture
def pixels() -> np.ndarray:
    """Correlated RGB values of 0 to 255, (n, 3)."""
    rng = np.random.default_rng(0)
    mix = np.array([[40.0, 8, 2], [38, -3, -4], [35, -6, 3]])
    return (rng.normal(size=(5000, 3)) @ mix.T + 120).clip(0, 255)


def pca(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, falling, and eigenvectors in columns, of the covariance of (n, 3)."""
    eigenvalues, vectors = np.linalg.eigh(np.cov(values.T, bias=True))
    return eigenvalues[::-1], vectors[:, ::-1]


def printed_shift(values: np.ndarray, vectors: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """`[p1 p2 p3] · [a1·l1, a2·l2, a3·l3]`, one image and one channel after the other."""
    shifts = np.zeros((len(amounts), 3))
    for i, a in enumerate(amounts):
        for channel in range(3):
            shifts[i, channel] = sum(vectors[channel, j] * a[j] * values[j] for j in range(3))
    return shifts


def test_the_shift_in_eigenvalues_is_the_papers_for_pixels_of_0_to_1(pixels: np.ndarray) -> None:
    values, vectors = pca(pixels)
    unit_values, unit_vectors = pca(pixels / 255)
    unit_vectors = unit_vectors * np.sign((unit_vectors * vectors).sum(0))
    amounts = np.random.default_rng(1).normal(0, 0.1, (20, 3))
    shifts = Color(vectors, values, "eigenvalues").shifts(torch.from_numpy(amounts).float())
    np.testing.assert_allclose(shifts.numpy(), 255 * printed_shift(unit_values, unit_vectors, amounts), rtol=1e-5)


@pytest.mark.parametrize("unit", ["std", "released-2012"])
def test_the_shift_in_deviations_is_the_released_codes_whatever_the_pixels_scale(pixels, unit) -> None:
    values, vectors = pca(pixels)
    amounts = np.random.default_rng(1).normal(0, 0.1, (20, 3))
    shifts = Color(vectors, values, unit).shifts(torch.from_numpy(amounts).float())
    np.testing.assert_allclose(shifts.numpy(), printed_shift(np.sqrt(values), vectors, amounts), rtol=1e-5)
    # The same on pixels of 0 to 1, then scaled back.
    unit_values, unit_vectors = pca(pixels / 255)
    unit_vectors = unit_vectors * np.sign((unit_vectors * vectors).sum(0))
    np.testing.assert_allclose(shifts, 255 * printed_shift(np.sqrt(unit_values), unit_vectors, amounts), rtol=1e-5)


def shifted(color: Color, std: float, count: int = 4000, color_std: float | None = None) -> np.ndarray:
    """The shift that each of many equal images got, (count, 3); the same at every pixel."""
    recipe = dataclasses.replace(PLAIN, color_jitter=std)
    images = torch.full((count, SIZE, SIZE, 3), 110, dtype=torch.uint8)
    mean = torch.full((SIZE, SIZE, 3), 100.0)
    preprocess = Preprocess(mean, CROP, 1.0)
    batch = preprocess.crops(images, draw(count, preprocess, color, recipe, generator(), color_std), None)
    assert float((batch - batch[:, :, :1, :1]).abs().max()) < 1e-4
    return batch[:, :, 0, 0].double().numpy()


@pytest.mark.parametrize(
    ("unit", "length", "divisor"),
    [
        ("eigenvalues", lambda values: values / 255, 1.0),
        ("std", np.sqrt, 1.0),
        ("released-2012", np.sqrt, 1.1),
    ],
)
def test_amounts_are_drawn_once_a_image_with_the_deviation_of_the_recipe(pixels, unit, length, divisor) -> None:
    values, vectors = pca(pixels)
    got = shifted(Color(vectors, values, unit), 0.1) * divisor - 10
    along = got @ vectors / length(values)  # back to the amounts a
    np.testing.assert_allclose(along.mean(0), 0, atol=0.006)
    np.testing.assert_allclose(np.cov(along.T), 0.01 * np.eye(3), atol=0.0006)


def test_a_schedule_can_turn_the_color_off(pixels: np.ndarray) -> None:
    values, vectors = pca(pixels)
    np.testing.assert_array_equal(shifted(Color(vectors, values, "released-2012"), 0.1, 5, color_std=0.0), 10.0)


def test_light_changes_brightness_and_contrast_no_more_than_the_recipe_says() -> None:
    recipe = dataclasses.replace(PLAIN, brightness=0.2)
    images = torch.zeros(400, SIZE, SIZE, 3, dtype=torch.uint8)
    images[:, SIZE // 2 :] = 100
    batch = augment(images, no_mean(), STILL, recipe, generator())[:, 0]
    dark, bright = batch.amin((1, 2)), batch.amax((1, 2))
    contrast = (bright - dark) / 100
    assert 0.79 < float(contrast.min()) < 0.82
    assert 1.18 < float(contrast.max()) < 1.21
    assert float(dark.abs().max()) <= 0.2 * 127.5 + 1e-4
    assert float(dark.abs().max()) > 0.19 * 127.5
