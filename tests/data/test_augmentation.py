"""Augmentation seen from outside: the pixels of the input images encode where they come from."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import chisquare, kstest, uniform

from alexnet import UsageError
from alexnet.data import augmentation
from alexnet.data.augmentation import (
    Augmentation,
    AugmentationPipeline,
    ColorAugmentation,
    Flip,
    PCAColor,
    Preprocessing,
    RandomCrop,
    RandomResizedCrop,
    SubtractMean,
    register_augmentation,
)
from alexnet.runs.recipe import Recipe, recipes
from alexnet.training.input_pipeline import augmentation_pipeline
from alexnet.training.train import set_up_training

SIZE, CROP = 24, 19
SPREAD = SIZE - CROP + 1

PLAIN = recipes()["paper"].override({"color_jitter": 0.0, "crop_size": CROP})
NO_COLOR = np.eye(3), np.zeros(3)
SOME_COLOR = np.eye(3), np.array([900.0, 90.0, 9.0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def no_mean(scale: float = 1.0) -> Preprocessing:
    return Preprocessing(torch.zeros(SIZE, SIZE, 3), CROP, scale)


def augment(images, preprocessing, color, recipe, generator, dtype=torch.float32) -> torch.Tensor:
    return augmentation_pipeline(recipe, preprocessing, *color)(images, generator, dtype=dtype)


def coordinates(count: int) -> torch.Tensor:
    """Images whose red is the row, green the column and blue the index of the image."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return torch.from_numpy(np.stack([np.stack([rows, columns, np.full_like(rows, i)], -1) for i in range(count)])).to(
        torch.uint8
    )


def placements(batch: torch.Tensor) -> list[tuple[int, int, bool, bool, bool]]:
    """Of each crop of `coordinates`: top, left, and whether it is flipped horizontally, vertically, and transposed."""
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


def drawn_placements(recipe: Recipe, count: int) -> list[tuple[int, int, bool, bool, bool]]:
    batch = augment(coordinates(1).expand(count, -1, -1, -1), no_mean(), NO_COLOR, recipe, generator())
    assert batch.shape == (count, 3, CROP, CROP)
    assert batch.dtype == torch.float32
    return placements(batch)


def assert_uniform(values: list, kinds: int) -> None:
    counts = Counter(values)
    assert len(counts) == kinds
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_crops_are_uniformly_distributed() -> None:
    assert_uniform([place[:2] for place in drawn_placements(PLAIN, 3200)], SPREAD**2)


def test_half_of_the_crops_are_flipped_horizontally_and_none_otherwise() -> None:
    found = drawn_placements(PLAIN, 3200)
    assert_uniform([place[2] for place in found], 2)
    assert not any(down or transposed for *_, down, transposed in found)


def test_the_eight_symmetries_of_a_square_are_uniformly_distributed() -> None:
    found = drawn_placements(PLAIN.override({"flip": "square"}), 3200)
    assert_uniform([place[2:] for place in found], 8)
    assert_uniform([place[:2] for place in found], SPREAD**2)


def test_without_flips_every_central_crop_is_the_same() -> None:
    recipe = PLAIN.override({"flip": "none", "crop_position": "center"})
    assert set(drawn_placements(recipe, 50)) == {((SIZE - CROP) // 2, (SIZE - CROP) // 2, False, False, False)}


def test_consecutive_images_share_a_draw_with_images_per_draw() -> None:
    found = drawn_placements(PLAIN.override({"images_per_draw": 32}), 320)
    assert all(len(set(found[i : i + 32])) == 1 for i in range(0, 320, 32))
    assert len(set(found)) > 5


def test_images_keep_their_order() -> None:
    batch = augment(coordinates(40), no_mean(), NO_COLOR, PLAIN, generator())
    np.testing.assert_array_equal(batch[:, 2, 0, 0], np.arange(40))


def test_the_mean_of_each_pixel_is_subtracted_wherever_the_crop_lies() -> None:
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    images = torch.from_numpy(np.repeat(np.round(mean)[None], 64, axis=0).astype(np.uint8))
    recipe = PLAIN.override({"flip": "square"})
    batch = augment(images, Preprocessing(torch.from_numpy(mean), CROP, 1.0), NO_COLOR, recipe, generator())
    assert float(batch.abs().max()) <= 0.51


def test_released_2012_subtracts_the_central_mean_from_every_crop_flipped_or_not() -> None:
    """`data -= data_mean_crop`, the released code's last step after the crop and the flip."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    edge = (SIZE - CROP) // 2
    middle = torch.from_numpy(mean[edge : edge + CROP, edge : edge + CROP].transpose(2, 0, 1).copy())
    released = Preprocessing(torch.from_numpy(mean), CROP, 1.0, mean_of_center=True)
    assert recipes()["released-2012"].mean == "center"
    batch = augment(coordinates(64), released, NO_COLOR, PLAIN, generator())
    plain = augment(coordinates(64), no_mean(), NO_COLOR, PLAIN, generator())
    torch.testing.assert_close(batch + middle, plain, atol=1e-4, rtol=0)


def test_pixels_are_scaled() -> None:
    full = augment(coordinates(4), no_mean(), NO_COLOR, PLAIN, generator())
    small = augment(coordinates(4), no_mean(1 / 64), NO_COLOR, PLAIN, generator())
    torch.testing.assert_close(small, full / 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flip", ["none", "horizontal", "square"])
@pytest.mark.parametrize("mean_of_center", [False, True])
def test_the_crop_kernel_equals_its_pytorch_reference(monkeypatch, flip, mean_of_center, dtype) -> None:
    rng = np.random.default_rng(0)
    size, crop_size = 53, 37
    images = torch.from_numpy(rng.integers(0, 256, (21, size, size, 3), dtype=np.uint8))
    mean = torch.from_numpy(rng.uniform(0, 255, (size, size, 3)).astype(np.float32))
    preprocessing = Preprocessing(mean, crop_size, 1 / 60, mean_of_center=mean_of_center)
    recipe = recipes()["paper"].override({"crop_size": crop_size, "brightness": 0.2, "flip": flip})
    recipe = recipe.override({"color_jitter_unit": "std"})

    def batch() -> torch.Tensor:
        return augment(images, preprocessing, SOME_COLOR, recipe, generator(), dtype=dtype)

    compiled = batch()
    monkeypatch.setattr("alexnet.data.augmentation.can_cut", lambda *_: False)
    gathered = batch()
    assert compiled.dtype == gathered.dtype == dtype
    assert compiled.shape == gathered.shape == (21, 3, crop_size, crop_size)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(compiled, gathered, rtol=tolerance, atol=tolerance)


def test_the_seed_determines_the_batch() -> None:
    recipe = recipes()["paper"].override({"crop_size": CROP, "brightness": 0.2})
    one, same, other = (augment(coordinates(8), no_mean(), SOME_COLOR, recipe, generator(seed)) for seed in (1, 1, 2))
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
    shifts = PCAColor(vectors, values, unit="eigenvalues").shifts(torch.from_numpy(amounts).float())
    np.testing.assert_allclose(shifts.numpy(), 255 * printed_shift(unit_values, unit_vectors, amounts), rtol=1e-5)


@pytest.mark.parametrize("unit", ["std", "released-2012"])
def test_the_shift_in_standard_deviations_is_the_released_codes_for_any_pixel_scale(pixels, unit) -> None:
    values, vectors = pca(pixels)
    amounts = np.random.default_rng(1).normal(0, 0.1, (20, 3))
    shifts = PCAColor(vectors, values, unit=unit).shifts(torch.from_numpy(amounts).float())
    np.testing.assert_allclose(shifts.numpy(), printed_shift(np.sqrt(values), vectors, amounts), rtol=1e-5)
    # The same on pixels of 0 to 1, then scaled back.
    unit_values, unit_vectors = pca(pixels / 255)
    unit_vectors = unit_vectors * np.sign((unit_vectors * vectors).sum(0))
    np.testing.assert_allclose(shifts, 255 * printed_shift(np.sqrt(unit_values), unit_vectors, amounts), rtol=1e-5)


def shifted(color: PCAColor, count: int = 4000, color_std: float | None = None) -> np.ndarray:
    """The shift of each of `count` equal images, (count, 3); the same at every pixel."""
    recipe = dataclasses.replace(PLAIN, color_jitter=color.std, color_jitter_unit=color.unit)
    images = torch.full((count, SIZE, SIZE, 3), 110, dtype=torch.uint8)
    mean = torch.full((SIZE, SIZE, 3), 100.0)
    preprocessing = Preprocessing(mean, CROP, 1.0)
    pipeline = augmentation_pipeline(recipe, preprocessing, color.eigenvectors, color.eigenvalues, color_std)
    batch = pipeline(images, generator())
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
def test_color_amounts_are_drawn_once_per_image_with_the_std_of_the_recipe(pixels, unit, length, divisor) -> None:
    values, vectors = pca(pixels)
    got = shifted(PCAColor(vectors, values, 0.1, unit)) * divisor - 10
    along = got @ vectors / length(values)  # back to the amounts a
    np.testing.assert_allclose(along.mean(0), 0, atol=0.006)
    np.testing.assert_allclose(np.cov(along.T), 0.01 * np.eye(3), atol=0.0006)


def test_a_schedule_can_switch_the_color_augmentation_off(pixels: np.ndarray) -> None:
    values, vectors = pca(pixels)
    color = PCAColor(vectors, values, 0.1, "released-2012")
    np.testing.assert_array_equal(shifted(color, 5, color_std=0.0), 10.0)


def test_brightness_and_contrast_change_by_at_most_the_recipes_amount() -> None:
    recipe = dataclasses.replace(PLAIN, brightness=0.2)
    images = torch.zeros(400, SIZE, SIZE, 3, dtype=torch.uint8)
    images[:, SIZE // 2 :] = 100
    batch = augment(images, no_mean(), NO_COLOR, recipe, generator())[:, 0]
    dark, bright = batch.amin((1, 2)), batch.amax((1, 2))
    contrast = (bright - dark) / 100
    assert 0.79 < float(contrast.min()) < 0.82
    assert 1.18 < float(contrast.max()) < 1.21
    assert float(dark.abs().max()) <= 0.2 * 127.5 + 1e-4
    assert float(dark.abs().max()) > 0.19 * 127.5


# The list of ops.


@dataclasses.dataclass(frozen=True)
class Inverted(Augmentation):
    """Every image is inverted with a probability: an op of a user's own."""

    probability: float = 0.5

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (torch.rand(count, generator=generator) < self.probability,)

    def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.where(parameters[0][:, None, None, None], 255 - images, images)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "_registered", {})


@pytest.mark.parametrize("flip", ["none", "horizontal", "square"])
@pytest.mark.parametrize("mean", ["image", "center"])
@pytest.mark.parametrize("crop_position", ["random", "center"])
@pytest.mark.parametrize("min_crop_area", [1.0, 0.5])
def test_the_fused_form_equals_the_ops_one_by_one(
    flip: str, mean: str, crop_position: str, min_crop_area: float
) -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (21, 53, 53, 3), dtype=np.uint8))
    mean_image = torch.from_numpy(rng.uniform(0, 255, (53, 53, 3)).astype(np.float32))
    preprocessing = Preprocessing(mean_image, 37, 1 / 60, mean_of_center=mean == "center")
    changes = {"flip": flip, "mean": mean, "crop_position": crop_position, "brightness": 0.2}
    changes |= {"color_jitter_unit": "released-2012", "images_per_draw": 4, "min_crop_area": min_crop_area}
    fused = augmentation_pipeline(recipes()["paper"].override(changes), preprocessing, *SOME_COLOR)
    composed = AugmentationPipeline(fused.augmentations, fuse=False)
    assert fused.is_fused
    assert not composed.is_fused
    rows = torch.tensor([3, 20, 7])
    for chosen in (None, rows):
        part = images if chosen is None else images[chosen]
        one, other = (p.apply(part, p.draw(21, generator(), chosen), 29) for p in (fused, composed))
        assert one.shape == (len(part), 3, 29, 29)
        assert one.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("min_area", [1.0, 0.7, 0.05])
def test_a_resized_crop_shows_a_rectangle_of_a_random_area_at_a_random_place(min_area: float) -> None:
    crop = RandomResizedCrop(min_area)
    count, side = 4000, 50
    (places,) = crop.draw(count, generator())
    top, left, height, width = places.T
    areas, ratios = height * width, (height / width).log() / np.log(crop.max_ratio)
    if min_area == 1:
        assert torch.equal(places, torch.tensor([0.0, 0, 1, 1], dtype=torch.float64).expand(count, -1))
    else:
        assert kstest(areas, uniform(min_area, 1 - min_area).cdf).pvalue > 1e-3
        inside = areas < 1 / crop.max_ratio  # all ratios fit
        assert kstest(ratios[inside], uniform(-1, 2).cdf).pvalue > 1e-3
        for start, extent in ((top, height), (left, width)):
            assert kstest((start / (1 - extent))[inside], uniform.cdf).pvalue > 1e-3
    # Red is the row and green the column of a pixel, so a resized rectangle shows where it was.
    rows, columns = np.mgrid[:side, :side]
    image = torch.from_numpy(np.stack([4 * rows, 4 * columns, 0 * rows], -1).astype(np.uint8))
    shown = crop.apply(image.expand(60, -1, -1, -1), places[:60])
    assert shown.dtype == torch.uint8
    assert shown.shape == (60, side, side, 3)
    for (above, before, high, wide), pixels in zip(places[:60] * side, shown, strict=True):
        across = 4 * (before + wide * (torch.arange(side) + 0.5) / side - 0.5)
        down = 4 * (above + high * (torch.arange(side) + 0.5) / side - 0.5)
        inner = slice(side // 10, -side // 10)  # the edge of a rectangle has no pixels to interpolate with
        torch.testing.assert_close(pixels[inner, 20, 0].double(), down[inner].double(), rtol=0, atol=4)
        torch.testing.assert_close(pixels[20, inner, 1].double(), across[inner].double(), rtol=0, atol=4)


def test_the_smallest_resized_crop_has_a_pixel() -> None:
    crop = RandomResizedCrop(1e-9)
    shown = crop.apply(coordinates(1).expand(4, -1, -1, -1), torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]] * 2))
    assert (shown[0, :, :, :2] == SIZE - 1).all()
    assert (shown[1] == 0).all()


def test_the_share_of_the_area_of_a_crop_is_checked() -> None:
    for wrong in (0, -0.5, 1.5):
        with pytest.raises(UsageError, match=r"min_crop_area is .*; it must be above 0 and at most 1"):
            recipes()["small"].override({"min_crop_area": wrong})


def test_every_recipe_uses_the_fused_form() -> None:
    preprocessing = Preprocessing(torch.zeros(256, 256, 3), 224, 1.0)
    for recipe in recipes().values():
        of_center = dataclasses.replace(preprocessing, mean_of_center=recipe.mean == "center")
        assert augmentation_pipeline(recipe, of_center, *NO_COLOR).is_fused, recipe.name


@pytest.mark.parametrize("order", [(RandomCrop, SubtractMean, Flip), (Flip, SubtractMean, RandomCrop)])
def test_another_order_of_known_ops_is_not_fused(order: tuple[type, ...]) -> None:
    ops = {RandomCrop: RandomCrop(SIZE, CROP), SubtractMean: SubtractMean(torch.zeros(SIZE, SIZE, 3)), Flip: Flip()}
    pipeline = AugmentationPipeline([ops[kind] for kind in order])
    assert not pipeline.is_fused
    assert pipeline(coordinates(3), generator()).shape == (3, 3, CROP, CROP)


def test_an_overridden_apply_is_never_replaced_by_the_fused_form() -> None:
    class Darker(ColorAugmentation):
        def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
            return ()

        def coefficients(self, count: int, *parameters: torch.Tensor) -> tuple[torch.Tensor, None]:
            return torch.full((count,), 0.5), None

    class Black(Darker):
        def apply(self, images: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(images)

    ops = [SubtractMean(torch.zeros(SIZE, SIZE, 3)), RandomCrop(SIZE, CROP), Flip()]
    plain, darker, black = (AugmentationPipeline([*ops, *more]) for more in ([], [Darker()], [Black()]))
    batch = plain(coordinates(4), generator())
    assert darker.is_fused
    torch.testing.assert_close(darker(coordinates(4), generator()), batch / 2)
    assert not black.is_fused
    assert not black(coordinates(4), generator()).any()


def test_an_op_of_ones_own_is_one_class_in_the_list_of_a_recipe(registry) -> None:
    register_augmentation("invert", Inverted)
    names = ["invert", "mean", "crop", "flip", "scale"]
    half = PLAIN.override({"augmentations": names})
    always = PLAIN.override({"augmentations": [("invert", {"probability": 1.0}), *names[1:]]})
    images = torch.full((400, SIZE, SIZE, 3), 55, dtype=torch.uint8)
    inverted = augment(images, no_mean(), NO_COLOR, half, generator())[:, 0, 0, 0] == 200
    assert 140 < int(inverted.sum()) < 260
    assert (augment(images, no_mean(), NO_COLOR, always, generator()) == 200).all()


def test_a_list_of_augmentations_survives_json(registry) -> None:
    register_augmentation("invert", Inverted)
    listed = ["mean", "crop", ["invert", {"probability": 0.25}], "scale"]
    recipe = PLAIN.override({"augmentations": listed})
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert recipe.differing({"augmentations": listed}) == []


def test_a_resumed_run_with_an_op_of_ones_own_equals_an_uninterrupted_one(registry, striped_data, tmp_path) -> None:
    register_augmentation("invert", Inverted)
    listed = ["mean", "crop", "flip", ("invert", {"probability": 0.3}), "scale"]

    def run(name: str, last_step: int | None = None, **changes) -> Path:
        training = set_up_training(striped_data, tmp_path / name, device="cpu", **changes)
        training.train(last_step)
        return tmp_path / name

    recipe = {
        "recipe": "paper",
        "variant": "lenet5",
        "epochs": 1,
        "init": "he",
        "lr": 1e-4,
        "batch_size": 8,
        "crop_size": 28,
    }
    recipe["augmentations"] = listed
    whole = run("whole", **recipe)
    part = run("part", last_step=1, **recipe)
    assert json.loads((part / "config.json").read_text(encoding="utf-8"))["recipe"]["augmentations"][3] == [
        "invert",
        {"probability": 0.3},
    ]
    run("part", resume=True)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, part))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (["mean", "crop", "nothing", "scale"], r"no augmentation 'nothing'.*register_augmentation"),
        (["mean", "crop", ("invert", {"chance": 1}), "scale"], "chance"),
        (["mean", "flip", "scale"], "'crop' 0 times"),
        (["mean", "crop", "mean", "scale"], "'mean' 2 times"),
    ],
)
def test_a_list_that_makes_no_sense_is_a_usage_error(registry, listed: list, message: str) -> None:
    register_augmentation("invert", Inverted)
    with pytest.raises(UsageError, match=message):
        PLAIN.override({"augmentations": listed})


def test_the_mean_must_be_subtracted_where_evaluation_subtracts_it() -> None:
    recipe = PLAIN.override({"augmentations": ["crop", "flip", "mean", "scale"]})
    with pytest.raises(UsageError, match="'mean' belongs before 'crop'"):
        augment(coordinates(1), no_mean(), NO_COLOR, recipe, generator())


def test_a_name_is_registered_once(registry) -> None:
    register_augmentation("invert", Inverted)
    register_augmentation("invert", Inverted)  # a notebook's cell that runs again
    for name in ("invert", "crop"):
        with pytest.raises(UsageError, match="exists already"):
            register_augmentation(name, Flip)
