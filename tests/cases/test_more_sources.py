"""Further cases A and B, as datasets of other tools and people have them. One function per case."""

from __future__ import annotations

import io
import re
import shlex
import sys
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_trees import jpeg, write_files

from alexnet import AlexNetError, UsageError, plan_source
from alexnet.data.splitting import parse_folders

JPEG = jpeg()


def build(root: Path, images: list[str], texts: dict[str, str | bytes] | None = None) -> Path:
    return write_files(root, dict.fromkeys(images, JPEG) | (texts or {}))


def images(*folders: str, count: int = 6) -> list[str]:
    return [f"{folder}/{number}.jpg" for folder in folders for number in range(count)]


def table(header: str, row: str, labels: list[str]) -> str:
    return header + "\n" + "".join(row.format(number, label) + "\n" for number, label in enumerate(labels))


def said(root: Path, **options: Any) -> str:
    return "\n".join(plan_source(root, **options).lines())


def readings(root: Path) -> list[list[str]]:
    """The classes of each reading that the message of an ambiguous source offers, by its commands."""
    with pytest.raises(UsageError) as error:
        plan_source(root)
    found = []
    for line in re.findall(r"`(alexnet prepare [^`]*)`", str(error.value)):
        name, value = shlex.split(line)[4:6]
        options: dict[str, Any] = {name.removeprefix("--").replace("-", "_"): value}
        if "splits" in options:
            options = {"splits": parse_folders(value)}
        try:
            found.append(plan_source(root, **options).classes)
        except AlexNetError as refused:
            found.append([str(refused)])
    return found


def test_objects_that_each_hold_splits_and_class_folders(tmp_path: Path) -> None:
    """Several objects of MVTec AD: the classes may be the objects or good and broken."""
    folders = [f"{item}/{part}" for item in ("bottle", "cable") for part in ("train/good", "train/broken", "test/good")]
    assert readings(build(tmp_path / "set", images(*folders)))[:2] == [["bottle", "cable"], ["broken", "good"]]


@pytest.mark.parametrize("copy", ["train (copy)", "train_old", "train_augmented"])
def test_a_second_training_folder_beside_the_splits(copy: str, tmp_path: Path) -> None:
    root = build(tmp_path / "set", images(*(f"{part}/{name}" for part in ("train", copy, "val") for name in "ab")))
    assert readings(root) == [["a", "b"], ["a", "b"]]


def test_a_table_whose_ids_name_several_images_is_said(tmp_path: Path) -> None:
    text = table("id,label", "{},{}", ["a", "b"] * 2)
    root = build(tmp_path / "set", images("p1", "p2", count=4), {"l.csv": text})
    assert "l.csv beside the class folders says classes and is not used: line 2: 0: 2 files have this name" in said(
        root
    )


def test_a_measured_value_is_no_class(tmp_path: Path) -> None:
    values = [f"{0.13 * number + 0.011:.3f}" for number in range(12)]
    root = build(tmp_path / "set", images("img", count=12), {"l.csv": table("file,target", "{}.jpg,{}", values)})
    with pytest.raises(AlexNetError, match=r"12 decimal numbers, such as 0.011, a measured value"):
        plan_source(root)


def test_grades_in_halves_are_classes(tmp_path: Path) -> None:
    root = build(
        tmp_path / "set", images("img", count=12), {"l.csv": table("file,grade", "{}.jpg,{}", ["0.5", "1.5"] * 6)}
    )
    assert plan_source(root).classes == ["0.5", "1.5"]


def test_whole_numbers_with_a_decimal_comma(tmp_path: Path) -> None:
    root = build(tmp_path / "set", images("img"), {"l.csv": table("file;label", "{}.jpg;{}", ["0,0", "1,0"] * 3)})
    assert plan_source(root).classes == ["0", "1"]


def test_a_class_that_may_be_a_missing_label_is_said(tmp_path: Path) -> None:
    root = build(tmp_path / "set", images("img"), {"l.csv": table("file,label", "{}.jpg,{}", ["NA", "a", "b"] * 2)})
    assert "class 'NA': if that marks a missing label" in said(root)


def test_boxes_of_one_class_in_each_image(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]},1\n{n}.jpg,{'ab'[n % 2]},5\n" for n in range(6))
    root = build(tmp_path / "set", images("img"), {"l.csv": "filename,class,xmin\n" + rows})
    assert "6 rows that repeat an image are not used" in said(root)


def workbook(*sheets: list[list[str | int]]) -> bytes:
    """A file of Excel with these rows."""
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    file = io.BytesIO()
    numbers = range(1, len(sheets) + 1)
    with zipfile.ZipFile(file, "w") as archive:
        root = f'<Relationship Id="r0" Type="{office}/officeDocument" Target="xl/workbook.xml"/>'
        archive.writestr("_rels/.rels", f'<Relationships xmlns="{package}">{root}</Relationships>')
        listed = "".join(f'<sheet name="S{n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
        archive.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{space}" xmlns:r="{office}"><sheets>{listed}</sheets></workbook>'
        )
        links = "".join(
            f'<Relationship Id="r{n}" Type="{office}/worksheet" Target="worksheets/{n}.xml"/>' for n in numbers
        )
        archive.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}">{links}</Relationships>')
        for number, rows in enumerate(sheets, 1):
            cells = [
                "".join(
                    f"<c><v>{cell}</v></c>" if isinstance(cell, int) else f'<c t="inlineStr"><is><t>{cell}</t></is></c>'
                    for cell in row
                )
                for row in rows
            ]
            text = "".join(f"<row>{row}</row>" for row in cells)
            archive.writestr(
                f"xl/worksheets/{number}.xml", f'<worksheet xmlns="{space}"><sheetData>{text}</sheetData></worksheet>'
            )
    return file.getvalue()


def test_a_workbook_names_the_classes(tmp_path: Path) -> None:
    rows: list[list[str | int]] = [["image", "label"], *([f"{n}.jpg", n % 2] for n in range(6))]
    root = build(
        tmp_path / "set", images("img"), {"labels.xlsx": workbook([["notes"]], rows), "~$labels.xlsx": b"\x05"}
    )
    plan = plan_source(root)
    assert (plan.classes, plan.images, plan.ignored) == (["0", "1"], 6, [])
    assert "labels.xlsx: sheet 'S2' is read, of 2" in plan.assumptions
    with pytest.raises(AlexNetError, match=r"none of the 6 images of .*first 0.jpg .*no such file"):
        plan_source(build(tmp_path, [], {"lone/l.xlsx": workbook(rows)}) / "lone/l.xlsx")
    rows[3][1] = ""
    build(root, [], {"labels.xlsx": workbook(rows)})
    with pytest.raises(AlexNetError, match=r"labels.xlsx, line 4: the label is missing"):
        plan_source(root)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PK\x03\x04", r"labels.xlsx cannot be read as a workbook \(.*\): open it, and save it as CSV"),
        (workbook([["a", "b"]]), r"labels.xlsx has no columns path and label, its first line is 'a, b': rename them"),
    ],
)
def test_a_workbook_that_is_no_table_is_named(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=why):
        plan_source(build(tmp_path / "set", images("img"), {"labels.xlsx": data}))


def test_a_workbook_without_the_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    root = build(tmp_path / "set", images("img"), {"labels.xlsx": workbook([["image", "label"], ["0.jpg", "a"]])})
    for source in (root, root / "labels.xlsx"):
        with pytest.raises(AlexNetError, match=r"pip install 'alexnet\[formats\]'"):
            plan_source(source)


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat", "cat ")])
def test_a_class_folder_of_another_spelling_in_validation(names: tuple[str, str], tmp_path: Path) -> None:
    root = build(tmp_path / "set", images(f"train/{names[0]}", "train/dog", f"val/{names[1]}", "val/dog"))
    with pytest.raises(AlexNetError, match="have one name"):
        plan_source(root)


def test_unicode_forms_that_differ_between_splits(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "사과") for form in ("NFC", "NFD"))
    root = build(tmp_path / "set", images(f"train/{composed}", "train/b", f"val/{decomposed}", "val/b"))
    assert plan_source(root).classes == ["b", "사과"]


def test_tables_of_one_column_per_class_in_each_split(tmp_path: Path) -> None:
    """Roboflow's multi-class export: train/_classes.csv with spaces after the commas."""
    root = tmp_path / "set"
    for part, count in (("train", 6), ("valid", 4)):
        rows = "".join(f"{part}{n}_jpg.rf.0a{n}.jpg, {n % 2}, {1 - n % 2}\n" for n in range(count))
        names = [f"{part}/{part}{n}_jpg.rf.0a{n}.jpg" for n in range(count)]
        build(root, names, {f"{part}/_classes.csv": "filename, cat, dog\n" + rows})
    assert plan_source(root).counts == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 2, "dog": 2}}


def test_what_systems_leave_behind_is_not_there(tmp_path: Path) -> None:
    junk = dict.fromkeys(
        (".DS_Store", "a/.DS_Store", "__MACOSX/a/._0.jpg", "a/Thumbs.db", "a/._1.jpg", ".git/x.jpg"), "x"
    )
    plan = plan_source(build(tmp_path / "set", images("a", "b"), junk))
    assert plan.images == 12
    assert not plan.ignored


# Splits in the names of class folders

PAIRS = ("cat_train", "cat_test", "dog_train", "dog_test")


@pytest.mark.parametrize(
    "folders",
    [PAIRS, ("train_cat", "test_cat", "train_dog", "test_dog"), ("catTrain", "catTest", "dogTrain", "dogTest")],
)
def test_a_split_in_the_name_of_each_class_folder(folders: tuple[str, ...], tmp_path: Path) -> None:
    root = build(tmp_path / "set", images(*folders))
    plan = plan_source(root)
    assert plan.counts == {"train": {"cat": 6, "dog": 6}, "test": {"cat": 6, "dog": 6}}
    assert any("folder names hold class and split" in text for text in plan.assumptions)
    assert plan_source(root, classes_from="folder").classes == sorted(folders)


def test_a_split_in_the_names_of_some_class_folders(tmp_path: Path) -> None:
    root = build(tmp_path / "set", images(*PAIRS, "bird, small"))
    assert readings(root) == [["bird, small", "cat", "dog"], sorted((*PAIRS, "bird, small"))]


def said_or_refused(root: Path) -> list[str]:
    try:
        return plan_source(root).classes
    except UsageError as refused:
        return re.findall("--classes-from folder", str(refused))


@pytest.mark.parametrize(
    "folders", [("steam_train", "test_tube", "toy_train"), ("steam_train", "steam_engine", "test_tube")]
)
def test_classes_that_are_called_as_splits_are_no_splits(folders: tuple[str, ...], tmp_path: Path) -> None:
    root = build(tmp_path / "set", images(*folders))
    assert plan_source(root, classes_from="folder").classes == sorted(folders)
    assert said_or_refused(root) in (sorted(folders), ["--classes-from folder"])


@pytest.mark.parametrize("unknown", ["test/unknown", "test", "test/test", "test1", "test/0"])
def test_test_images_without_classes_are_ignored(unknown: str, tmp_path: Path) -> None:
    plan = plan_source(build(tmp_path / "set", images("train/a", "train/b", unknown)))
    assert plan.counts.keys() == {"train", "val"}
    assert [(left.files, left.first) for left in plan.ignored] == [(6, unknown.split("/")[0] + "/")]


# Lists


def test_a_list_of_training_images_only(tmp_path: Path) -> None:
    listed = "".join(f"{name}/{n}.jpg\n" for name in "ab" for n in range(4))
    root = build(tmp_path / "set", images("images/a", "images/b"), {"train.txt": listed})
    plan = plan_source(root)
    assert (plan.images, plan.ignored[0].files) == (8, 4)
    assert "'train.txt' names the training images; --classes-from folder ignores it" in plan.assumptions
    assert plan_source(root, classes_from="folder").images == 12


def aircraft(kind: str, names: list[str]) -> dict[str, str | bytes]:
    return {
        f"data/images_{kind}_{split}.txt": "".join(f"{n:07} {names[i % len(names)]}\n" for i, n in enumerate(part))
        for split, part in (
            ("train", range(8)),
            ("val", range(8, 16)),
            ("trainval", range(16)),
            ("test", range(16, 24)),
        )
    }


def test_lists_of_ids_and_classes_with_spaces(tmp_path: Path) -> None:
    """FGVC-Aircraft: a list of each split for each of several properties."""
    photos = [f"data/images/{n:07}.jpg" for n in range(24)]
    variants = ["707-320", "Boeing 717"]
    root = build(tmp_path / "set", photos, {**aircraft("variant", variants), "data/variants.txt": "707-320\n"})
    plan = plan_source(root)
    assert plan.counts == {split: {"707-320": 4, "Boeing 717": 4} for split in ("train", "val", "test")}
    assert [origin.place for origin in plan.origins] == [
        f"data/images_variant_{split}.txt (column 2)" for split in ("test", "train", "val")
    ]
    boxes = "".join(f"{n:07} {n} 2 30 4\n" for n in range(24))
    families = ["Boeing 707", "Boeing 717", "A300"]
    build(root, [], {"data/images_box.txt": boxes, **aircraft("family", families)})
    assert readings(root) == [["A300", "Boeing 707", "Boeing 717"], ["707-320", "Boeing 717"]]


def test_a_lone_list_of_ids_and_classes(tmp_path: Path) -> None:
    text = "".join(f"{n} {'ab'[n % 2]} x\n" for n in range(6))
    assert plan_source(build(tmp_path / "set", images("images"), {"train.txt": text})).classes == ["a x", "b x"]


# Tables and names that are understood and may mean something else: said, or refused


def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    """dog, small without quotation marks was class dog."""
    rows = "".join(f"{n}.jpg,{('dog, small', 'dog, large', 'cat')[n % 3]}\n" for n in range(6))
    root = build(tmp_path / "set", images("img"), {"l.csv": "file,label\n" + rows})
    with pytest.raises(AlexNetError, match=r"l.csv, line 2: 3 cells, and the header has 2: put quotation marks around"):
        plan_source(root)
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]},\n" for n in range(6))
    assert plan_source(build(root, [], {"l.csv": "file,label\n" + rows})).classes == ["a", "b"]


def test_two_columns_of_one_name_with_different_values_are_refused(tmp_path: Path) -> None:
    text = table("file,label,label", "{},{},z", ["a", "b"] * 3)
    with pytest.raises(AlexNetError, match=r"l.csv has 2 columns 'label' with different values"):
        plan_source(build(tmp_path / "set", images("img"), {"l.csv": text}))


def test_another_column_of_classes_and_one_of_folds_are_said(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]},{'xyz'[n % 3]},{n % 5}\n" for n in range(6))
    text = said(build(tmp_path / "set", images("img"), {"l.csv": "file,label,category,fold\n" + rows}))
    assert "the classes are the column 'label' of l.csv; --classes-from l.csv:category takes 'category'" in text
    assert "the column 'fold' of l.csv is not used" in text
    plan = plan_source(tmp_path / "set", classes_from="l.csv:category")
    assert plan.classes == ["x", "y", "z"]


def test_a_column_of_splits_that_is_not_used_is_said(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]},{('train', 'spare')[n % 2]}\n" for n in range(6))
    text = said(build(tmp_path / "set", images("img"), {"l.csv": "file,label,subset\n" + rows}))
    assert "the column 'subset' of l.csv is not used: not all of its values are splits" in text


@pytest.mark.parametrize("column", ["Usage", "phase"])
def test_splits_as_kaggle_calls_them(column: str, tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{'ab'[n % 2]},{('Training', 'PublicTest', 'PrivateTest')[n // 2]}\n" for n in range(6))
    plan = plan_source(build(tmp_path / "set", images("img"), {"l.csv": f"file,emotion,{column}\n" + rows}))
    assert {split: sum(counts.values()) for split, counts in plan.counts.items()} == {"train": 2, "test": 4}


def test_classes_as_lists_in_json(tmp_path: Path) -> None:
    text = '{"cat": ["0.jpg", "1.jpg", "2.jpg"], "dog": ["3.jpg", "4.jpg", "5.jpg"]}'
    assert plan_source(build(tmp_path / "set", images("img"), {"labels.json": text})).classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("2024-01-01", "2024-01-02"), "look like dates: are they classes?"),
        (("100CANON", "101CANON"), "look like folders of a camera: are they classes?"),
        (("100APPLE", "101APPLE"), "look like folders of a camera: are they classes?"),
        (("cat ", "dog"), "class 'cat ' has spaces around its name"),
        (("-1", "1"), "class '-1': if that marks a missing label"),
        (("animal/cat", "animal/dog", "car"), "animal/ is one class, with the folders 'cat', 'dog'"),
    ],
)
def test_folders_that_may_be_no_classes_are_said(names: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    assert expected in said(build(tmp_path / "set", images(*names)))


@pytest.mark.parametrize("names", [("cat", "dog"), ("0", "1"), ("2024-01-01", "dog"), ("a/x", "b/y")])
def test_plain_classes_have_no_remark(names: tuple[str, ...], tmp_path: Path) -> None:
    plan = plan_source(build(tmp_path / "set", images(*names)))
    assert (plan.warnings, plan.assumptions) == ([], [])


def test_tables_of_splits_with_equal_file_names(tmp_path: Path) -> None:
    """train.csv is about train/images/0.jpg, and val.csv about val/images/0.jpg."""
    text = table("image,label", "{}.jpg,{}", ["a", "b"] * 3)
    root = build(tmp_path / "set", images("train/images", "val/images"), {"train.csv": text, "val.csv": text})
    assert plan_source(root).counts == {"train": {"a": 3, "b": 3}, "val": {"a": 3, "b": 3}}
    build(root, [], {"other.csv": text})
    for name in ("train.csv", "val.csv"):
        (root / name).unlink()
    with pytest.raises(AlexNetError, match=r"such as '0.jpg': 2 files have this name"):
        plan_source(root)


@pytest.mark.parametrize(
    "text",
    [
        "image,label\r0.jpg,1\r1.jpg,0\r2.jpg,1\r3.jpg,0\r",  # classic Mac
        "# exported by a tool\n\nimage,label\n0.jpg,1\n1.jpg,0\n2.jpg,1\n3.jpg,0\n",
        "image,label\n0.jpg,1.000e+00\n1.jpg,0.000e+00\n2.jpg,1.000e+00\n3.jpg,0.000e+00\n",  # numpy.savetxt
    ],
)
def test_tables_of_other_tools(text: str, tmp_path: Path) -> None:
    root = build(tmp_path / "set", images("img", count=4), {"l.csv": text})
    assert plan_source(root).counts == {"train": {"0": 1, "1": 1}, "val": {"0": 1, "1": 1}}


# Archives and downloads that are not what they are called


FAILED_DOWNLOADS = (
    (b"", "is empty"),
    (b"\n<!DOCTYPE html><html>404", "is a web page, not the file itself: the download has failed"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer, .* `git lfs pull`"),
)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        *((name, *failed) for name in ("x.zip", "x.tar.gz", "x.csv", "x.7z") for failed in FAILED_DOWNLOADS),
        ("photos.7z", b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive: unpack it with `7z x"),
        ("photos.rar", b"Rar!\x1a\x07", "is a RAR archive: unpack it with `unrar x"),
        ("photos.mat", b"MATLAB", "is a MATLAB file"),
        ("photos.h5", b"\x89HDF\r\n", "is an HDF5 file"),
        ("labels.xlsx", b"PK\3\4", "cannot be read as a workbook"),
        ("photos.tar.zst", b"\x28\xb5\x2f\xfdjunk", "is damaged"),
        ("clip.mp4", b"\0\0\0\x18ftypisom", "is a video"),
        ("x.z01", b"PK\x07\x08" + bytes(50), "is a part of a divided zip archive"),
        ("x.tar.lz4", b"\x04\x22\x4d\x18" + bytes(50), "is an LZ4 file: unpack it with `lz4 -d"),
        ("x.iso", b"a" * 50, "is a disk image"),
        ("setup.exe", b"MZ" + bytes(50), "is a Windows program"),
        ("clip.webm", b"\x1aE\xdf\xa3", "is a video"),
    ],
)
def test_failed_downloads_and_foreign_files_are_named(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=expected):
        plan_source(build(tmp_path, [], {name: content}) / name)


def zipped(path: Path, members: list[str], content: bytes = JPEG) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in members:
            archive.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_an_archive_has_twice_is_said(tmp_path: Path) -> None:
    source = zipped(tmp_path / "x.zip", [*images("a", "b"), "a/0.jpg"])
    assert plan_source(source).images == 12
    assert "ignored: a/0.jpg (an earlier file of the same name in the archive)" in said(source)


def test_an_archive_in_an_archive_names_the_command(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", images("a", "b"))
    outer = zipped(tmp_path / "my set.zip", ["inner.zip"], inner.read_bytes())
    with pytest.raises(AlexNetError) as error:
        plan_source(outer)
    command = shlex.split(str(error.value).split("`")[1])
    assert command == ["unzip", str(outer), "-d", str(tmp_path / "my set")]
    with zipfile.ZipFile(command[1]) as archive:
        archive.extractall(command[3])
    assert plan_source(command[3]).classes == ["a", "b"]


def test_one_image_of_each_class_cannot_be_divided_and_that_is_said(tmp_path: Path) -> None:
    text = said(build(tmp_path / "set", images("a", "b", "c", count=1)))
    assert "no validation split: no class has two images to train on" in text
    assert "--split val=0.1" not in text


# Parquet files and JSON


def parquet(path: Path, **columns: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [JPEG] * 6, **columns}), path)
    return path


def test_a_column_of_splits_in_parquet(tmp_path: Path) -> None:
    splits = ["train"] * 4 + ["test"] * 2
    plan = plan_source(parquet(tmp_path / "a.parquet", label=[0, 1] * 3, split=splits))
    assert plan.counts == {"train": {"0": 2, "1": 2}, "test": {"0": 1, "1": 1}}
    text = said(parquet(tmp_path / "b.parquet", label=[0, 1] * 3, split=["x", "y"] * 3))
    assert "the column 'split' of b.parquet is not used: not all of its values are splits" in text


def test_fine_and_coarse_classes_in_parquet_are_said_with_the_option_that_works(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", fine_label=[0, 1, 2] * 2, coarse_label=[0, 1] * 3)
    plan = plan_source(source)
    assert plan.classes == ["0", "1", "2"]
    (option,) = re.findall(r"--ignore-columns (\S+) takes 'coarse_label'", "".join(plan.assumptions))
    assert plan_source(source, ignore_columns=[option]).classes == ["0", "1"]


def test_parquet_files_whose_classes_are_in_other_columns_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "set/train-0.parquet", label=[0, 1] * 3)
    parquet(tmp_path / "set/test-0.parquet", target=[0, 1] * 3)
    with pytest.raises(AlexNetError, match=r"'target' in test-0.parquet, 'label' in train-0.parquet"):
        plan_source(tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.jsonl", '{"path":"0.jpg","label":"a"}\n\n{"path":\n', r"x.jsonl, line 3: not a JSON object"),
        ("x.json", '{"a":1', r"x.json is not JSON: Expecting ','"),
    ],
)
def test_damaged_json_is_named_with_its_line(name: str, text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=expected):
        plan_source(build(tmp_path, [], {name: text}) / name)
