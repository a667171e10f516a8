"""The format of a prepared dataset, and reading it at random."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data.dataset import SHARD_ROWS, PreparedDataset, Split
from alexnet.data.preparation import prepare
from alexnet.runtime.errors import AlexNetError

COUNT, SIZE = 600, 12


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def data(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 images of three classes in three shards, and 10 to validate."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    source = [(image, "abc"[number % 3], "train") for number, image in enumerate(images)]
    prepare([*source, *((image, "abc"[n % 3], "val") for n, image in enumerate(images[:10]))], folder, size=SIZE)
    return folder


@pytest.fixture
def train(data: Path) -> Split:
    return PreparedDataset.open(data).split("train")


def test_facts(data: Path, images: np.ndarray) -> None:
    dataset = PreparedDataset.open(data)
    assert dataset.classes == ["a", "b", "c"]
    assert dataset.size == SIZE
    assert dataset.splits == ["train", "val"]
    assert dataset.mean_image.shape == (SIZE, SIZE, 3)
    assert dataset.mean_image.dtype == np.float32
    assert dataset.source == "images from Python"
    assert [len(dataset.split(name)) for name in dataset.splits] == [COUNT, 10]
    assert dataset.split("train").class_counts == [200, 200, 200]
    assert dataset.split("val").class_counts == [4, 3, 3]


def test_images_labels_and_paths_by_index(train: Split, images: np.ndarray) -> None:
    assert len(train) == COUNT
    assert train.labels.dtype == np.int64
    assert (train.labels == np.arange(COUNT) % 3).all()
    for index in (0, 255, 256, 511, 512, 599):
        image, label = train[index]
        assert (image == images[index]).all()
        assert label == index % 3
        assert train.paths(index) == f"image {index}"


@settings(max_examples=50, deadline=None)
@given(indices=st.lists(st.integers(0, COUNT - 1), max_size=40))
def test_gather_takes_any_order(data: Path, images: np.ndarray, indices: list[int]) -> None:
    gathered = PreparedDataset.open(data).split("train").gather(np.array(indices, dtype=np.int64))
    assert gathered.dtype == np.uint8
    assert (gathered == images[indices]).all()


def test_gather_fills_what_it_is_given(train: Split, images: np.ndarray) -> None:
    out = np.empty((3, SIZE, SIZE, 3), np.uint8)
    assert train.gather(np.array([599, 0, 300]), out) is out
    assert (out == images[[599, 0, 300]]).all()


@pytest.mark.parametrize("index", [-1, COUNT])
def test_no_such_index(train: Split, index: int) -> None:
    with pytest.raises(IndexError, match="outside 0 … 599"):
        train[index]
    with pytest.raises(IndexError, match="outside 0 … 599"):
        train.gather(np.array([0, index]))


def test_a_split_goes_to_another_process(train: Split, images: np.ndarray) -> None:
    train.gather(np.arange(10))
    assert (pickle.loads(pickle.dumps(train))[300][0] == images[300]).all()


def test_shards_are_mapped_without_holding_them_open(train: Split) -> None:
    before = len(os.listdir("/proc/self/fd"))
    train.gather(np.arange(COUNT))
    assert len(os.listdir("/proc/self/fd")) == before


def test_iteration_ends(data: Path) -> None:
    assert [label for _, label in PreparedDataset.open(data).split("val")] == [n % 3 for n in range(10)]


def test_a_shard_is_one_batch_of_plain_columns(data: Path, images: np.ndarray) -> None:
    with pa.OSFile(str(data / "train-00001.arrow")) as file:
        reader = pa.ipc.open_file(file)
        assert reader.num_record_batches == 1
        batch = reader.get_batch(0)
    assert len(batch) == SHARD_ROWS
    assert batch.schema.names == ["image", "label", "path"]
    assert batch.schema.field("image").type == pa.binary(SIZE * SIZE * 3)
    assert batch.schema.field("label").type == pa.int32()
    assert json.loads(batch.schema.metadata[b"classes"]) == ["a", "b", "c"]
    assert batch.schema.metadata[b"size"] == b"12"
    assert batch.column("image")[5].as_py() == images[SHARD_ROWS + 5].tobytes()


def test_hugging_face_datasets_opens_the_shards(data: Path, images: np.ndarray, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = {name: [str(path) for path in sorted(data.glob(f"{name}-*.arrow"))] for name in ("train", "val")}
    loaded = datasets.load_dataset("arrow", data_files=files, cache_dir=str(tmp_path))
    assert len(loaded["train"]) == COUNT
    assert loaded["train"][300]["image"] == images[300].tobytes()
    assert loaded["val"][4]["label"] == 1


def test_verify_finds_what_was_changed(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in data.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    dataset = PreparedDataset.open(copy)
    dataset.verify()
    assert set(dataset.checksums()) == {
        *("mean.npy", "train-00000.arrow", "train-00001.arrow", "train-00002.arrow", "val-00000.arrow")
    }
    shard = copy / "train-00002.arrow"
    content = bytearray(shard.read_bytes())
    content[2000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(AlexNetError, match=r"train-00002\.arrow"):
        dataset.verify()


def test_no_such_split(data: Path) -> None:
    with pytest.raises(AlexNetError, match="has no split 'test': it has train, val"):
        PreparedDataset.open(data).split("test")


def test_what_is_no_prepared_dataset(data: Path, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="does not exist"):
        PreparedDataset.open(tmp_path / "nothing")
    with pytest.raises(AlexNetError, match="is not a prepared dataset"):
        PreparedDataset.open(tmp_path)
    (tmp_path / "prepare.json").write_text("{}", encoding="utf-8")
    with pytest.raises(AlexNetError, match="is not finished"):
        PreparedDataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(AlexNetError, match="can't be read"):
        PreparedDataset.open(tmp_path)
    index = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    (tmp_path / "dataset.json").write_text(json.dumps({**index, "format_version": 2}), encoding="utf-8")
    with pytest.raises(AlexNetError, match="has format version 2, this alexnet reads 1"):
        PreparedDataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(AlexNetError, match=r"misses 5 of its files, mean\.npy first"):
        PreparedDataset.open(tmp_path)


def test_a_truncated_shard_is_named(data: Path, tmp_path: Path) -> None:
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "val-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(AlexNetError, match=r"val-00000\.arrow can't be read as a shard"):
        PreparedDataset.open(tmp_path).split("val").gather(np.array([0]))
