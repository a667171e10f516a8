"""Checkpoints of cuda-convnet, written as Python 2 wrote them, against the two towers computed one by one."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import python2
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import AlexNet, AlexNetError
from alexnet.weights.cuda_convnet import read_cuda_convnet
from alexnet.weights.pickles import load_arrays

CLASSES = 6


class Checkpoint:
    """The layers of configuration #145, as layer.py leaves them: neurons are layers of their own."""

    def __init__(self, seed: int, units: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.block = self.rng.standard_normal(99_991, dtype=np.float32)  # repeated: the test is not about chance
        self.layers: dict[str, dict[str, Any]] = {"data": {"name": "data", "type": "data"}}
        for t in "ab":
            self.conv(f"conv1{t}", ["data"], 3, 48, 11, 0)
            self.add(f"rnorm1{t}", "cmrnorm", [f"conv1{t}"], size=5, scale=1e-4 / 5, pow=0.75, minDiv=2.0)
            self.add(f"pool1{t}", "pool", [f"rnorm1{t}"], neuron={"type": "relu"})
            self.neuron(f"pool1{t}")
            self.conv(f"conv2{t}", [f"pool1{t}_neuron"], 48, 128, 5, 2, relu=True)
            self.add(f"rnorm2{t}", "cmrnorm", [f"conv2{t}_neuron"], size=5, scale=1e-4 / 5, pow=0.75, minDiv=2.0)
            self.add(f"cnorm2{t}", "rnorm", [f"rnorm2{t}"], size=5, scale=0.001 / 25, pow=0.75)
            self.add(f"pool2{t}", "pool", [f"cnorm2{t}"])
        for t in "ab":
            self.conv(f"conv3{t}", ["pool2a", "pool2b"], 128, 192, 3, 1, relu=True)
        for t in "ab":
            self.conv(f"conv4{t}", [f"conv3{t}_neuron"], 192, 192, 3, 1, relu=True)
            self.conv(f"conv5{t}", [f"conv4{t}_neuron"], 192, 128, 3, 1)
            self.add(f"pool3{t}", "pool", [f"conv5{t}"], neuron={"type": "relu"})
            self.neuron(f"pool3{t}")
        for t in "ab":
            self.full(f"fc2048{t}", ["pool3a_neuron", "pool3b_neuron"], 128 * 36, units)
            self.add(f"hs1{t}", "hs", [f"fc2048{t}_neuron"], keep=0.5)
        self.full("fc2048ba", ["hs1a", "hs1b"], units, units)
        self.full("fc2048bb", ["hs1b", "hs1a"], units, units)  # as there: its own tower first
        for t in "ab":
            self.add(f"hs2{t}", "hs", [f"fc2048b{t}_neuron"], keep=0.5)
        self.full("fc1000", ["hs2a", "hs2b"], units, CLASSES, relu=False)
        self.add("probs", "softmax", ["fc1000"])

    def add(self, name: str, kind: str, inputs: list[str], **more: Any) -> None:
        self.layers[name] = {"name": name, "type": kind, "inputs": inputs, **more}

    def neuron(self, name: str) -> None:
        self.add(f"{name}_neuron", "neuron", [name], neuron={"type": "relu"})

    def weights(self, rows: int, columns: int, order: str) -> np.ndarray:
        values = np.resize(self.block, (rows, columns)) * np.float32(np.sqrt(2 / rows))
        return np.require(values, requirements=order)

    def conv(
        self, name: str, inputs: list[str], maps: int, kernels: int, size: int, pad: int, relu: bool = False
    ) -> None:
        self.add(name, "conv", inputs, filterSize=[size] * len(inputs), padding=[-pad] * len(inputs))
        self.layers[name]["weights"] = [self.weights(maps * size * size, kernels, "C") for _ in inputs]
        self.layers[name]["biases"] = self.rng.standard_normal((kernels, 1), dtype=np.float32) / 10
        if relu:
            self.layers[name]["neuron"] = {"type": "relu"}
            self.neuron(name)

    def full(self, name: str, inputs: list[str], rows: int, units: int, relu: bool = True) -> None:
        self.add(name, "fc", inputs)
        self.layers[name]["weights"] = [self.weights(rows, units, "F") for _ in inputs]
        self.layers[name]["biases"] = self.rng.standard_normal((1, units), dtype=np.float32) / 10
        if relu:
            self.neuron(name)

    def dumps(self) -> bytes:
        options = python2.Named("options", "OptionsParser", {"options": {}})
        return python2.dumps({"model_state": {"epoch": 91, "layers": self.layers}, "op": options})

    def logits(self, x: Tensor) -> Tensor:
        """Every layer for itself, as the released code computes it at test time."""
        values = {"data": x}
        for name, layer in list(self.layers.items())[1:-1]:
            below = [values[i] for i in layer["inputs"]]
            values[name] = self.value(layer, below)
        return values["fc1000"]

    def value(self, layer: dict[str, Any], below: list[Tensor]) -> Tensor:  # noqa: PLR0911
        x = below[0]
        match layer["type"]:
            case "conv":
                (size, pad), total = (layer["filterSize"][0], -layer["padding"][0]), 0
                for one, weight in zip(below, layer["weights"], strict=True):
                    w = torch.from_numpy(weight).T.reshape(weight.shape[1], -1, size, size)
                    if size == 11:  # the last window reads zeros beyond the edge
                        one = F.pad(one, (0, 3, 0, 3))  # noqa: PLW2901
                    total = total + F.conv2d(one, w, stride=4 if size == 11 else 1, padding=pad)
                return total + torch.from_numpy(layer["biases"]).reshape(1, -1, 1, 1)
            case "fc":
                parts = zip(below, layer["weights"], strict=True)
                return sum(one.flatten(1) @ torch.from_numpy(w) for one, w in parts) + torch.from_numpy(layer["biases"])
            case "cmrnorm":
                squares = F.pad(x * x, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
                return x / (layer["minDiv"] + layer["scale"] * squares) ** layer["pow"]
            case "rnorm":
                squares = F.avg_pool2d(x * x, 5, 1, 2) * 25
                return x / (1 + layer["scale"] * squares) ** layer["pow"]
            case "pool":
                return F.max_pool2d(x, 3, 2, ceil_mode=True)
            case "hs":
                return x * layer["keep"]
        return F.relu(x)


@torch.no_grad()
def test_the_logits_are_those_of_the_two_towers(tmp_path: Path) -> None:
    checkpoint = Checkpoint(0, units=2048)
    file = tmp_path / "91.1"
    file.write_bytes(checkpoint.dumps())
    found = read_cuda_convnet(file)
    file.unlink()
    assert found.variant == "released-2012"
    assert found.mean_of_center
    with torch.device("meta"):
        network = AlexNet(found.variant, CLASSES)
    network.load_state_dict(found.weights, assign=True)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 60
    expected = checkpoint.logits(x)
    torch.testing.assert_close(network.eval()(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def saved(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    file = tmp_path / "1.1"
    file.write_bytes(checkpoint.dumps())
    return file


def test_towers_of_another_width_are_named(tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match=r"fc2048a and fc2048b \(weights\) is 16×9216, not 4096×9216"):
        read_cuda_convnet(saved(tmp_path, Checkpoint(0, units=8)))


def test_missing_layers_and_weights_and_other_constants_are_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint(0, units=8)
    del checkpoint.layers["conv3b"]["weights"]
    with pytest.raises(AlexNetError, match="conv3b has no weights for each"):
        read_cuda_convnet(saved(tmp_path, checkpoint))
    checkpoint = Checkpoint(0, units=8)
    checkpoint.layers["pool2b"]["inputs"] = ["cnorm9"]
    with pytest.raises(AlexNetError, match="cnorm9"):
        read_cuda_convnet(saved(tmp_path, checkpoint))
    checkpoint = Checkpoint(0, units=8)
    checkpoint.layers["pool3a_neuron"]["neuron"] = {"type": "tanh"}
    with pytest.raises(AlexNetError, match="layers that no released network has"):
        read_cuda_convnet(saved(tmp_path, checkpoint))


def test_a_pickle_that_names_a_command_runs_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    for module, name in (("posix", "system"), ("os", "system"), ("__builtin__", "eval"), ("subprocess", "call")):
        evil = b"c" + f"{module}\n{name}\n".encode() + b"(S'touch " + str(proof).encode() + b"'\ntR."
        file = tmp_path / "1.1"
        file.write_bytes(b"\x80\x02" + evil)
        with pytest.raises(AlexNetError, match=f"names {module}.{name}, .*nothing of it was run"):
            read_cuda_convnet(file)
    assert not proof.exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "1.1"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data", "w") as out:
        for _ in range(100):
            out.write(bytes(1 << 20))
    with pytest.raises(AlexNetError, match="would unpack to 104,857,600 bytes"):
        read_cuda_convnet(file)


def test_a_zipped_checkpoint_is_read_like_a_plain_one(tmp_path: Path) -> None:
    file = tmp_path / "1.1"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", Checkpoint(0, units=8).dumps())
    with pytest.raises(AlexNetError, match="16×9216, not 4096×9216"):
        read_cuda_convnet(file)


@pytest.mark.parametrize("kind", ["<f4", "<f8", "<i4", "|u1"])
def test_arrays_are_read_as_they_were_written(kind: str) -> None:
    from alexnet.weights.pickles import array_of

    array = np.arange(24).reshape(4, 6).astype(kind)
    for one in (array, np.asfortranarray(array)):
        np.testing.assert_array_equal(array_of(load_arrays(python2.dumps(one), "x")), array)


def test_an_array_that_claims_more_than_it_has_is_refused() -> None:
    content = python2.dumps(np.zeros((2, 2), np.float32)).replace(b"J\x02\x00\x00\x00", b"J\xff\xff\xff\x7f")
    with pytest.raises(AlexNetError, match="with 16 bytes"):
        load_arrays(content, "x")
