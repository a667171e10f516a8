"""Our networks in ONNX Runtime, against our own forward."""

import numpy as np
import pytest
import torch
from torch import Tensor

from alexnet import AlexNet, variants
from alexnet.data.augment import Preprocess
from alexnet.weights.onnx import to_onnx

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


def narrow(variant: str, **switches: object) -> AlexNet:
    """A variant with 7 classes, all its layers, and fc6 and fc7 of 24 units: the file stays small."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = AlexNet(variant, 7, **switches)
    network.fc6 = torch.nn.Linear(network.fc6.in_features, 24, device="meta")
    network.fc7 = torch.nn.Linear(24, 24, device="meta")
    network.logits = torch.nn.Linear(24, 7, device="meta")
    network.to_empty(device="cpu").initialize("he")
    torch.nn.init.normal_(network.logits.weight, 0, 0.3)
    for module in network.children():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.num_batches_tracked.zero_()
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return network.eval()


def answers(model: "onnx.ModelProto", x: Tensor) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


SWITCHES = [
    {},
    {"normalization": "batch"},
    {"normalization": "none"},
    {"activation": "tanh"},
    {"pooling": "non-overlapping"},
]


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("variant", variants())
def test_onnx_runtime_gives_the_same_logits(variant: str, switches: dict[str, str]) -> None:
    network = narrow(variant, **switches)
    side = network.input_size
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 50
    expected = network(x).numpy()
    np.testing.assert_allclose(answers(to_onnx(network), x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "one-weird-trick", "released-2012"])
@pytest.mark.parametrize("side", [131, 195, 224, 256])
def test_another_side_is_averaged_to_what_fc6_reads(variant: str, side: int) -> None:
    network = narrow(variant)
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1)) * 50
    expected = network(x).softmax(1).numpy()
    np.testing.assert_allclose(answers(to_onnx(network, side=side, softmax=True), x), expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("side", [None, 195, 224])
def test_the_preprocessing_inside_is_that_of_the_central_patch(side: int | None) -> None:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(256, (2, 256, 256, 3), generator=generator, dtype=torch.uint8)
    mean = torch.rand(256, 256, 3, generator=generator) * 200
    preprocess = Preprocess(mean, crop=227, scale=1 / 60, side=side)
    network = narrow("paper")
    expected = network(preprocess.centre(pictures)).numpy()
    found = answers(to_onnx(network, preprocess=preprocess), pictures)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
