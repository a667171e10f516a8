"""Toronto's bvlc_alexnet.npy, written as Python 2 wrote it, with its axes turned from Caffe's here."""

import io
from pathlib import Path

import caffe_files
import numpy as np
import pytest
import python2

from alexnet import AlexNetError
from alexnet.weights.toronto import read_toronto

CLASSES = 5


def npy(value: object) -> bytes:
    """An .npy of one object, whatever it is: the header, then the pickle of an array of objects."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    array = np.empty((), object)
    array[()] = value
    return header.getvalue() + python2.dumps(array)


def test_the_weights_are_those_of_caffe(tmp_path: Path) -> None:
    weights = caffe_files.arrays(0, CLASSES)
    turned = {}
    for name, (weight, bias) in weights.items():
        if weight.ndim == 4:
            turned[name] = [weight.transpose(2, 3, 1, 0).copy(), bias]  # rows, columns, channels, kernels
        elif name == "fc6":
            # Row (y * 6 + x) * 256 + c has the weights of feature map c at (y, x).
            turned[name] = [weight.reshape(-1, 256, 6, 6).transpose(2, 3, 1, 0).reshape(9216, -1).copy(), bias]
        else:
            turned[name] = [weight.T.copy(), bias]
    file = tmp_path / "bvlc_alexnet.npy"
    file.write_bytes(npy(turned))
    found = read_toronto(file)
    assert found.variant == "caffe"
    np.testing.assert_allclose(found.mean[0, 0], [122.67891434, 116.66876762, 104.00698793], rtol=1e-6)
    assert len(found.weights) == 16
    for name, (weight, bias) in weights.items():
        ours = "logits" if name == "fc8" else name
        rgb = weight[:, ::-1] if name == "conv1" else weight  # theirs has blue first
        np.testing.assert_array_equal(found.weights[f"{ours}.weight"], rgb, err_msg=name)
        np.testing.assert_array_equal(found.weights[f"{ours}.bias"], bias, err_msg=name)


def test_missing_unknown_and_misshapen_arrays_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    few = {name: [np.zeros((2, 2), np.float32), np.zeros(2, np.float32)] for name in ("conv1", "fc6", "fc9")}
    file.write_bytes(npy(few))
    with pytest.raises(AlexNetError) as error:
        read_toronto(file)
    assert "fc9.weight is unknown" in str(error.value) or "fc9 (weights) is unknown" in str(error.value)
    assert "conv1 (weights) is 2×2, not 96×3×11×11" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x93NUMPY\x01\x00", "damaged .npy"),
        (npy({"conv1": 3}), "conv1 is not a list of two arrays"),
        (npy([1, 2]), "no dictionary of layers"),
        (npy({})[:-3], "can't be read as a pickle"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    file.write_bytes(content)
    with pytest.raises(AlexNetError, match=message):
        read_toronto(file)


def test_a_plain_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(AlexNetError, match="not a dictionary of layers"):
        read_toronto(tmp_path / "x.npy")
