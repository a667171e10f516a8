"""Files of Caffe, written here with its published schema, against OpenCV, which reads them too."""

from pathlib import Path

import caffe_files
import numpy as np
import pytest
import torch

from alexnet import AlexNet, AlexNetError
from alexnet.weights.caffe import caffe_mean, read_caffe
from alexnet.weights.foreign import ForeignWeights

CLASSES = 11


def opencv():
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV no longer reads Caffe's files")
    return cv2


def network_of(found: ForeignWeights) -> AlexNet:
    with torch.device("meta"):
        network = AlexNet(found.variant, CLASSES)
    network.load_state_dict(found.weights, assign=True)
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize(("variant", "old"), [("caffe", True), ("caffenet", False)])
def test_the_logits_are_those_of_opencv(variant: str, old: bool, tmp_path: Path) -> None:
    cv2 = opencv()
    rows = caffe_files.rows(pool_first=variant == "caffenet", classes=CLASSES)
    file, text = tmp_path / "network.caffemodel", tmp_path / "deploy.prototxt"
    file.write_bytes(caffe_files.caffemodel(rows, caffe_files.arrays(0, CLASSES), old))
    text.write_text(caffe_files.prototxt(rows), encoding="utf-8")
    rgb = np.random.default_rng(1).integers(0, 256, (227, 227, 3), dtype=np.uint8)
    mean = (104.00698793, 116.66876762, 122.67891434)
    theirs = cv2.dnn.readNetFromCaffe(str(text), str(file))
    theirs.setInput(cv2.dnn.blobFromImage(rgb[:, :, ::-1].copy(), mean=mean))
    expected = theirs.forward()[0]

    found = read_caffe(file)
    assert found.variant == variant
    crop = torch.from_numpy(rgb).float() - found.mean[14:241, 14:241]
    logits = network_of(found)(crop.permute(2, 0, 1)[None] * found.scale)[0].numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected).max() > 1


def small(array: np.ndarray) -> np.ndarray:
    return array[tuple(slice(0, min(side, 4)) for side in array.shape)]


@pytest.fixture(scope="module")
def few() -> dict[str, list[np.ndarray]]:
    """Arrays with a few elements each: errors are found without 240 MB."""
    return {name: [small(a) for a in arrays] for name, arrays in caffe_files.arrays(0, CLASSES).items()}


@pytest.mark.parametrize("old", [True, False])
def test_arrays_of_wrong_shape_and_missing_and_unknown_arrays_are_named(few: dict, old: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.caffemodel"
    weights = {**few, "fc8": few["fc8"][:1], "conv2": [*few["conv2"], few["conv2"][1]]}
    file.write_bytes(caffe_files.caffemodel(caffe_files.rows(False, CLASSES), weights, old))
    with pytest.raises(AlexNetError) as error:
        read_caffe(file)
    message = str(error.value)
    assert "fc8 (biases) is missing" in message or "logits.bias is missing" in message
    assert "unknown" in message
    assert "conv1 (weights) is 4×3×4×4, not 96×3×11×11" in message


def test_another_network_is_refused(few: dict, tmp_path: Path) -> None:
    file = tmp_path / "x.caffemodel"
    rows = [row for row in caffe_files.rows(False, CLASSES) if row[1] != "LRN"]
    file.write_bytes(caffe_files.caffemodel(rows, few, old=True))
    with pytest.raises(AlexNetError, match="neither bvlc_alexnet nor bvlc_reference_caffenet"):
        read_caffe(file)
    rows = [(n, k, s | {"alpha": 0.0005} if k == "LRN" else s) for n, k, s in caffe_files.rows(False, CLASSES)]
    file.write_bytes(caffe_files.caffemodel(rows, few, old=False))
    with pytest.raises(AlexNetError, match=r"norm1 normalizes with .*0\.0005"):
        read_caffe(file)


def test_a_truncated_file_is_named(few: dict, tmp_path: Path) -> None:
    file = tmp_path / "x.caffemodel"
    content = caffe_files.caffemodel(caffe_files.rows(False, CLASSES), few, old=True)
    for share in (0.2, 0.7, 0.99):
        file.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(AlexNetError, match=r"x\.caffemodel is truncated"):
            read_caffe(file)


def test_the_mean_image_is_converted_from_bgr_to_rgb(tmp_path: Path) -> None:
    mean = np.random.default_rng(2).uniform(0, 255, (3, 256, 256)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(caffe_files.blob(mean, old=True))
    np.save(tmp_path / "mean.npy", mean.astype(np.float64))
    for name in ("mean.binaryproto", "mean.npy"):
        found = caffe_mean(tmp_path / name)
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found[7, 200], mean[::-1, 7, 200])
    np.save(tmp_path / "color.npy", np.array([104.0, 117.0, 123.0]))
    np.testing.assert_array_equal(caffe_mean(tmp_path / "color.npy")[0, 0], [123, 117, 104])


def test_a_mean_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mean.binaryproto").write_bytes(caffe_files.blob(np.zeros((3, 40, 40)), old=True))
    with pytest.raises(AlexNetError, match="3×40×40"):
        caffe_mean(tmp_path / "mean.binaryproto")
    np.save(tmp_path / "mean.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(AlexNetError, match="is not a mean image"):
        caffe_mean(tmp_path / "mean.npy")
