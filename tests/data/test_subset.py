"""A subset of a prepared dataset: the images of the other one, by reference, with statistics of its own."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.data.dataset import PreparedDataset
from alexnet.data.preparation import prepare
from alexnet.data.subset import write_subset
from alexnet.runtime.errors import AlexNetError


@pytest.fixture
def dataset(striped_data: Path) -> PreparedDataset:
    return PreparedDataset.open(striped_data)


@pytest.fixture
def chosen(dataset: PreparedDataset) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(dataset.split("train")))[:13]


@pytest.fixture
def subset(dataset: PreparedDataset, chosen: np.ndarray, tmp_path: Path) -> PreparedDataset:
    return write_subset(tmp_path / "subset", dataset, {"train": ("train", chosen), "test": ("val", np.arange(3))})


def test_images_labels_and_paths_are_those_of_the_dataset(
    dataset: PreparedDataset, chosen: np.ndarray, subset: PreparedDataset
) -> None:
    whole, part = dataset.split("train"), subset.split("train")
    assert subset.counts == {"train": 13, "test": 3}
    assert len(part) == 13
    np.testing.assert_array_equal(part.labels, whole.labels[chosen])
    np.testing.assert_array_equal(part.gather(np.arange(13)[::-1]), whole.gather(chosen[::-1]))
    for i, source in enumerate(chosen.tolist()):
        assert part.paths(i) == whole.paths(source)
        np.testing.assert_array_equal(part[i][0], whole[source][0])
        assert part[i][1] == whole[source][1]
    assert part.class_counts == np.bincount(whole.labels[chosen], minlength=2).tolist()
    assert subset.split("test").paths(2) == dataset.split("val").paths(2)


def test_statistics_are_those_of_a_dataset_prepared_from_the_same_images(
    dataset: PreparedDataset, chosen: np.ndarray, subset: PreparedDataset, tmp_path: Path
) -> None:
    split = dataset.split("train")
    for index in chosen.tolist():
        image, label = split[index]
        folder = tmp_path / "images" / "train" / dataset.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    shutil.copytree(tmp_path / "images" / "train", tmp_path / "images" / "val")  # else some would be split off
    prepared = prepare(tmp_path / "images", tmp_path / "data", size=dataset.size, progress=False)
    np.testing.assert_array_equal(subset.mean_image, prepared.mean_image)
    np.testing.assert_array_equal(subset.mean_rgb, prepared.mean_rgb)
    np.testing.assert_array_equal(subset.pca_eigenvalues, prepared.pca_eigenvalues)
    np.testing.assert_array_equal(subset.pca_eigenvectors, prepared.pca_eigenvectors)


def test_no_image_is_copied(dataset: PreparedDataset, subset: PreparedDataset) -> None:
    mean = dataset.size**2 * 3 * 4
    assert sum(file.stat().st_size for file in subset.path.iterdir()) < mean + 10_000


def test_a_subset_of_a_subset_has_its_images(subset: PreparedDataset, tmp_path: Path) -> None:
    again = write_subset(tmp_path / "again", subset, {"train": ("train", np.array([7, 2]))})
    np.testing.assert_array_equal(again.split("train").gather(np.arange(2)), subset.split("train").gather([7, 2]))


def test_a_split_of_a_subset_can_be_pickled(subset: PreparedDataset) -> None:
    split = pickle.loads(pickle.dumps(subset.split("train")))
    np.testing.assert_array_equal(split.labels, subset.split("train").labels)


def test_an_index_out_of_range_is_refused(subset: PreparedDataset) -> None:
    split = subset.split("train")
    for index in (-1, 13):
        with pytest.raises(IndexError):
            split[index]
        with pytest.raises(IndexError):
            split.gather(np.array([index]))


def test_the_rows_belong_to_the_checksums(subset: PreparedDataset) -> None:
    subset.verify()
    rows = (
        subset.path / json.loads((subset.path / "dataset.json").read_text(encoding="utf-8"))["splits"]["train"]["rows"]
    )
    np.save(rows, np.load(rows)[::-1])
    with pytest.raises(AlexNetError, match=rows.name):
        subset.verify()


def test_a_missing_shard_is_named(striped_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = prepare(striped_folder(3, 3), tmp_path / "data", size=72, progress=False)
    write_subset(tmp_path / "subset", dataset, {"train": ("train", np.arange(4))})
    shard = next((tmp_path / "data").glob("train-*"))
    shard.unlink()
    with pytest.raises(AlexNetError, match=shard.name):
        PreparedDataset.open(tmp_path / "subset")
