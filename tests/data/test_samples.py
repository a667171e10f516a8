"""Weights, soft labels and groups: read from tables and names, checked row by row, stored, and kept in one split."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.data.dataset import PreparedDataset
from alexnet.data.sources.groups import ItemCounts, draw_groups
from alexnet.data.sources.items import Item, Sample
from alexnet.data.subset import write_subset

Command = Callable[..., Any]


def write_table(folder: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """A CSV of images 000.png, 001.png, ..., and these images."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *header])
        for number, row in enumerate(rows):
            Image.new("RGB", (8, 8), (number, 10, 10)).save(folder / f"{number:03}.png")
            writer.writerow([f"{number:03}.png", *row])
    return folder / "images.csv"


def prepared(command: Command, source: Path, data: Path, *options: object) -> PreparedDataset:
    done = command("prepare", source, data, "--size", 8, "--workers", 1, *options)
    assert done.returncode == 0, done.stderr
    return PreparedDataset.open(data)


def plan(command: Command, source: Path, *options: object) -> dict[str, Any]:
    done = command("prepare", source, "--dry-run", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LABELS = ["cat", "dog"] * 4


def by_path(dataset: PreparedDataset, column: str) -> dict[str, Any]:
    """The values of a column of all splits, by the name of the image."""
    found = {}
    for name in dataset.splits:
        split = dataset.split(name)
        found |= {split.paths(index): value for index, value in enumerate(getattr(split, column))}
    return found


def test_a_dataset_stores_weights_confidences_and_groups(command: Command, tmp_path: Path) -> None:
    rows = [[label, 0.5 * n, 1 - n / 10, f"part {n // 2}"] for n, label in enumerate(LABELS)]
    source = write_table(tmp_path, ["label", "weight", "confidence", "group"], rows)
    dataset = prepared(command, source, tmp_path / "data")
    assert by_path(dataset, "weights") == {f"{n:03}.png": 0.5 * n for n in range(8)}
    assert by_path(dataset, "groups") == {f"{n:03}.png": f"part {n // 2}" for n in range(8)}
    for name, target in by_path(dataset, "targets").items():
        n = int(name[:3])
        expected = [1 - n / 10, n / 10] if LABELS[n] == "cat" else [n / 10, 1 - n / 10]
        np.testing.assert_allclose(target, expected, rtol=1e-6)
    assert dataset.samples == {
        "weights": {"smallest": 0.0, "largest": 3.5, "zero": 1},
        "soft_labels": {"form": "confidence", "smallest": pytest.approx(0.3), "doubtful": 7},
        "groups": {"groups": 4, "largest": 2, "without": 0},
    }


def test_a_dataset_without_these_columns_has_none(command: Command, tmp_path: Path) -> None:
    source = write_table(tmp_path, ["label"], [[label] for label in LABELS])
    dataset = prepared(command, source, tmp_path / "data")
    split = dataset.split("train")
    assert (split.weights, split.targets, split.groups, dataset.samples) == (None, None, None, {})


def test_a_confidence_leaves_the_rest_to_the_other_classes_equally(command: Command, tmp_path: Path) -> None:
    source = write_table(tmp_path, ["label", "confidence"], [["a", 0.7], ["b", 1], ["c", 0.4], ["a", 1], ["b", 1]])
    targets = by_path(prepared(command, source, tmp_path / "data"), "targets")
    np.testing.assert_allclose(targets["000.png"], [0.7, 0.15, 0.15], rtol=1e-6)
    np.testing.assert_allclose(targets["002.png"], [0.3, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(targets["001.png"], [0, 1, 0])


@pytest.mark.parametrize(("prefix", "labeled"), [("", True), ("p_", True), ("prob_", True), ("", False)])
def test_a_column_of_probabilities_for_each_class(command: Command, tmp_path: Path, prefix: str, labeled: bool) -> None:
    probabilities = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    labels = [["a"], ["b"], ["c"]] * 2
    rows = [[*label, *row] if labeled else row for label, row in zip(labels, probabilities, strict=True)]
    header = [*(["label"] if labeled else []), *(prefix + name for name in "abc")]
    dataset = prepared(command, write_table(tmp_path, header, rows), tmp_path / "data")
    assert dataset.classes == ["a", "b", "c"]
    for name, target in by_path(dataset, "targets").items():
        np.testing.assert_allclose(target, probabilities[int(name[:3])], rtol=1e-6)
    assert {name: dataset.classes[label] for name, label in by_path(dataset, "labels").items()} == {
        f"{n:03}.png": "abcabc"[n] for n in range(6)
    }


def test_columns_that_are_ignored_are_not_read(command: Command, tmp_path: Path) -> None:
    rows = [[label, "heavy", 2, f"g{n % 2}"] for n, label in enumerate(LABELS)]
    source = write_table(tmp_path, ["label", "weight", "confidence", "group"], rows)
    found = plan(command, source, "--ignore-columns", "weight, confidence,group")
    assert (found["weights"], found["soft_labels"], found["groups"]) == (None, None, None)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (["weight"], ["-1"], "the weight is -1; it must be a number of 0 or more"),
        (["weight"], ["inf"], "the weight is inf"),
        (["weight"], ["nan"], "the weight is nan"),
        (["weight"], ["heavy"], "the weight is 'heavy'"),
        (["weight"], [""], "the weight is missing"),
        (["confidence"], ["1.5"], "the confidence is 1.5; it must be a number from 0 to 1"),
        (["cat", "dog"], ["0.5", "0.3"], "the probabilities of the classes add up to 0.8, not to 1"),
        (["cat", "dog"], ["x", "1"], "the cat is 'x'"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_line_and_the_remedy(
    command: Command, tmp_path: Path, header: list[str], row: list[str], message: str
) -> None:
    good = ["1"] * len(header) if len(header) == 1 else ["0", "1"]
    rows = [["cat", *good], ["dog", *good], ["cat", *row], ["dog", *good]]
    done = command("prepare", write_table(tmp_path, ["label", *header], rows), tmp_path / "data")
    assert done.returncode == 1
    assert f"line 4: {message}" in done.stderr
    assert "--ignore-columns" in done.stderr
    assert not (tmp_path / "data").exists()


def test_equally_probable_classes_without_a_label_are_refused(command: Command, tmp_path: Path) -> None:
    source = write_table(tmp_path, ["a", "b"], [[0.3, 0.7], [0.5, 0.5]])
    done = command("prepare", source, "--dry-run")
    assert done.returncode == 1
    assert "line 3: 'a', 'b' are equally probable: add a column label" in done.stderr


def test_confidence_and_probabilities_together_are_refused(command: Command, tmp_path: Path) -> None:
    source = write_table(tmp_path, ["label", "confidence", "a", "b"], [["a", 1, 0.9, 0.1], ["b", 1, 0.2, 0.8]])
    done = command("prepare", source, "--dry-run")
    assert done.returncode == 1
    assert "--ignore-columns confidence" in done.stderr


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_parquet_and_arrow_files_have_the_same_columns(command: Command, tmp_path: Path, kind: str) -> None:
    table = write_table(tmp_path / "images", ["label"], [[label] for label in LABELS])
    columns = {
        "image": [{"bytes": (table.parent / f"{n:03}.png").read_bytes(), "path": None} for n in range(8)],
        "label": LABELS,
        "weight": [n + 1.0 for n in range(8)],
        "group": [n // 2 for n in range(8)],
        "cat": [0.75 if label == "cat" else 0.25 for label in LABELS],
        "dog": [0.25 if label == "cat" else 0.75 for label in LABELS],
    }
    source = tmp_path / f"images.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(columns), source)
    else:
        with pa.ipc.new_stream(source, pa.table(columns).schema) as writer:
            writer.write_table(pa.table(columns))
    dataset = prepared(command, source, tmp_path / "data")
    assert sorted(by_path(dataset, "weights").values()) == [n + 1.0 for n in range(8)]
    assert Counter(by_path(dataset, "groups").values()) == {str(n): 2 for n in range(4)}
    for name in dataset.splits:
        split = dataset.split(name)
        assert split.targets is not None
        np.testing.assert_allclose(split.targets[np.arange(len(split)), split.labels], 0.75)


def test_the_plan_says_what_was_found(command: Command, tmp_path: Path) -> None:
    rows = [[label, n, 0.5 + 0.5 * (n % 2), f"g{n // 2}" if n else ""] for n, label in enumerate(LABELS)]
    source = write_table(tmp_path, ["label", "weight", "confidence", "group"], rows)
    done = command("prepare", source, "--dry-run")
    assert "weights: 0 to 7, 1 image of weight 0" in done.stdout
    assert "soft labels (confidence of the label): 4 images with an uncertain label" in done.stdout
    assert "groups: 4 of up to 2 images; each is in one split" in done.stdout
    assert "1 image without a group, each one of its own, first 000.png" in done.stdout
    assert "drawn by whole groups" in done.stdout


def write_modules(folder: Path, modules: int, cells: int) -> Path:
    """Cells of modules, named m03_c1.png, in two folders of classes."""
    for module in range(modules):
        for cell in range(cells):
            place = folder / ("bad" if (module + cell) % 3 == 0 else "good")
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (module, cell, 0)).save(place / f"m{module:02}_c{cell}.png")
    return folder


def test_groups_from_file_names_stay_in_one_split(command: Command, tmp_path: Path) -> None:
    folder = write_modules(tmp_path / "images", 20, 3)
    (folder / "good" / "loose.png").write_bytes((folder / "good" / "m01_c0.png").read_bytes())
    options = ("--group-regex", r"^(m\d+)_", "--split", "val=0.2,test=0.2")
    found = plan(command, folder, *options)
    assert any("1 image without a group" in text and "loose.png" in text for text in found["warnings"])
    dataset = prepared(command, folder, tmp_path / "data", *options)
    groups = {name: set(dataset.split(name).groups) for name in dataset.splits}
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == 21
    assert found["counts"] == {
        name: dict(zip(dataset.classes, dataset.split(name).class_counts, strict=True)) for name in dataset.splits
    }
    for name, share in (("val", 0.2), ("test", 0.2)):
        assert dataset.counts[name] / 61 == pytest.approx(share, abs=0.06)
        assert dataset.split(name).class_counts[0] / 20 == pytest.approx(share, abs=0.06)


def test_a_regular_expression_with_a_slash_reads_the_path(command: Command, tmp_path: Path) -> None:
    write_modules(tmp_path / "images", 4, 3)
    found = plan(command, tmp_path / "images", "--group-regex", r"^(bad|good)/")
    assert found["groups"] == {"groups": 2, "largest": 8, "without": 0}


@pytest.mark.parametrize(("regex", "message"), [("(", "not a regular expression"), ("abc", "no capturing group")])
def test_a_useless_regular_expression_is_invalid_usage(
    command: Command, tmp_path: Path, regex: str, message: str
) -> None:
    write_modules(tmp_path / "images", 3, 3)
    done = command("prepare", tmp_path / "images", "--dry-run", "--group-regex", regex)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_group_in_two_given_splits_is_refused_with_the_remedy(command: Command, tmp_path: Path) -> None:
    rows = [[label, "train" if n < 5 else "val", f"g{n // 2}"] for n, label in enumerate(LABELS)]
    source = write_table(tmp_path, ["label", "split", "group"], rows)
    done = command("prepare", source, tmp_path / "data")
    assert done.returncode == 1
    assert "1 group of" in done.stderr
    assert "g2 in train and val" in done.stderr
    assert "--ignore-columns group" in done.stderr
    prepared(command, source, tmp_path / "data", "--ignore-columns", "group")


def test_two_rows_of_one_image_must_agree(command: Command, tmp_path: Path) -> None:
    source = write_table(tmp_path, ["label", "weight"], [["a", 1], ["b", 2]])
    source.write_text(source.read_text(encoding="utf-8") + "000.png,a,3\n")
    done = command("prepare", source, "--dry-run")
    assert done.returncode == 1
    assert "weight is 3.0, and 1.0 in another row" in done.stderr


def test_a_subset_keeps_weights_soft_labels_and_groups(command: Command, tmp_path: Path) -> None:
    rows = [[label, n + 1, 0.8, f"g{n}"] for n, label in enumerate(LABELS * 3)]
    source = write_table(tmp_path, ["label", "weight", "confidence", "group"], rows)
    dataset = prepared(command, source, tmp_path / "data")
    whole, chosen = dataset.split("train"), np.array([5, 0, 3, 2, 7])
    part = write_subset(tmp_path / "subset", dataset, {"train": ("train", chosen)}).split("train")
    assert whole.weights is not None
    assert whole.targets is not None
    assert whole.groups is not None
    np.testing.assert_array_equal(part.weights, whole.weights[chosen])
    np.testing.assert_array_equal(part.targets, whole.targets[chosen])
    np.testing.assert_array_equal(part.groups, whole.groups[chosen])


def test_an_interrupted_preparation_makes_a_shard_again_where_a_weight_has_changed(
    command: Command, tmp_path: Path
) -> None:
    rows = [[label, 1] for label in LABELS]
    source = write_table(tmp_path, ["label", "weight"], [*rows[:-1], ["dog", 2]])
    prepared(command, source, tmp_path / "data", "--split", "val=0.25")
    done = command("prepare", source, tmp_path / "again", "--size", 8, "--max-bad", "0", "--split", "val=0.25")
    assert done.returncode == 0
    (tmp_path / "000.png").write_bytes(b"damaged")
    done = command("prepare", source, tmp_path / "third", "--size", 8, "--max-bad", "0", "--split", "val=0.25")
    assert done.returncode == 1  # shards are made, the dataset is not finished
    write_table(tmp_path, ["label", "weight"], [*rows[:-1], ["dog", 7]])
    third = prepared(command, source, tmp_path / "third", "--max-bad", "0", "--split", "val=0.25")
    assert by_path(third, "weights")["007.png"] == 7


group_tables = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(1, 9), min_size=1),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(groups=group_tables, singles=st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(1, 20)))
def test_drawn_groups_leave_every_class_something_to_train_on(
    groups: dict[str, dict[str, int]], singles: dict[str, int]
) -> None:
    items = [
        Item(f"{group}-{label}-{n}", label, None, "", sample=Sample(group=group))
        for group, per_class in groups.items()
        for label, number in per_class.items()
        for n in range(number)
    ]
    items += [Item(f"{label}-{n}", label, None, "") for label, number in singles.items() for n in range(number)]
    draw = draw_groups(ItemCounts.of(items), {"val": 0.2, "test": 0.1}, seed=0)
    assert set(draw.split_of) == set(groups)
    trained = {label for group, per_class in groups.items() if draw.split_of[group] == "train" for label in per_class}
    trained |= {label for label, number in singles.items() if sum(draw.singles.get(label, {}).values()) < number}
    assert trained == {item.label for item in items}
    assert all(sum(draw.singles[label].values()) <= singles[label] for label in draw.singles)
