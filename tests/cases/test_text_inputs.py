"""Small text files that people write: lists of images, costs, corrections. In their encodings and separators."""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import pytest

from alexnet import AlexNetError
from alexnet.data.corrections import read_corrections
from alexnet.evaluation.costs import read_costs
from alexnet.prediction.inputs import find_images

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "cp949"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", ["{}", '"{}"', "{}  "])
def test_a_list_of_images(encoding: str, form: str, tmp_path: Path) -> None:
    for name in ("사과 1.jpg", "plain.jpg"):
        (tmp_path / name).write_bytes(b"")
    lines = [form.format("사과 1.jpg"), "", form.format("plain.jpg"), form.format("missing.jpg"), " ", ""]
    (tmp_path / "list.txt").write_bytes("\r\n".join(lines).encode(encoding))
    found = [Path(image.source).name for image in find_images([], [tmp_path / "list.txt"]).images]
    assert found[:2] == ["사과 1.jpg", "plain.jpg"]
    assert "missing" in found[2]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("separator", "half"), [(",", "0.5"), (";", "0,5"), ("\t", "0.5")])
def test_a_file_of_costs(encoding: str, separator: str, half: str, tmp_path: Path) -> None:
    rows = [["", "사과", "배"], ["사과", "0", half], ["배", "7", "0"], ["", "", ""]]
    text = "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n"
    (tmp_path / "costs.csv").write_bytes(text.encode(encoding))
    np.testing.assert_array_equal(read_costs(tmp_path / "costs.csv", ["배", "사과"]), [[0, 7], [0.5, 0]])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_file_of_corrections(encoding: str, separator: str, tmp_path: Path) -> None:
    rows = [["path", "label", "note"], ["a/1.jpg", "사과", ""], ["a/2.jpg", "", ""], ["a/3.jpg"]]
    text = "\r\n".join(separator.join(row) for row in rows) + "\r\n"
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    found = [(one.path, one.decision, one.label) for one in read_corrections(tmp_path / "labels.csv")]
    assert found == [("a/1.jpg", "change", "사과"), ("a/2.jpg", "drop", ""), ("a/3.jpg", "drop", "")]


def test_an_encoding_that_cannot_be_told_is_refused_without_an_option_that_the_verb_lacks(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(codecs.encode("path,label\n1.jpg,猫\n", "shift_jis"))
    for read in (read_corrections, lambda path: read_costs(path, ["a"])):
        with pytest.raises(AlexNetError, match=r"x.csv is not UTF-8 text \(line 2\).*save it as UTF-8$"):
            read(tmp_path / "x.csv")
