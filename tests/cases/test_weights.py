"""Weights as common tools save them, and class files as people have them: read, or refused in one line."""

from __future__ import annotations

import argparse
import enum
import io
import json
import os
import pathlib
import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_trees import zip_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from alexnet import AlexNet, AlexNetError, UsageError
from alexnet.cli.main import main
from alexnet.weights import WeightFormat, formats, register_weight_format, weight_formats
from alexnet.weights.class_names import read_class_names
from alexnet.weights.importing import import_weights, read_weights
from alexnet.weights.pytorch import load_checkpoint, read_pytorch

SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}


def backbone(seed: int = 0) -> dict[str, Tensor]:
    """torchvision's convolutions: all that the readers need, without the 220 MB of the fully connected layers."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{layer}.{part}": torch.randn(shape if part == "weight" else shape[:1], generator=generator)
        for layer, shape in SHAPES.items()
        for part in ("weight", "bias")
    }


def prefixed(prefix: str, seed: int = 0) -> dict[str, Tensor]:
    return {f"{prefix}{name}": array for name, array in backbone(seed).items()}


class Mode(enum.Enum):
    """Something of a training script, which a checkpoint may hold."""

    FAST = 1


def namespace(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(lr=0.1, data_path=pathlib.PurePosixPath("/data"), mode=Mode.FAST, **values)


def optimizer_state() -> dict[str, Any]:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(3)
    optimizer.step()
    return optimizer.state_dict()


CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "torchvision's training script": lambda: {
        "model": backbone(),
        "optimizer": optimizer_state(),
        "lr_scheduler": {"last_epoch": 3, "_last_lr": [0.1]},
        "epoch": 3,
        "args": namespace(),
    },
    "PyTorch's tutorial": lambda: {"epoch": 3, "model_state_dict": backbone(), "loss": torch.tensor(0.3)},
    "the ImageNet example": lambda: {
        "epoch": 3,
        "arch": "alexnet",
        "state_dict": prefixed("module."),
        "best_acc1": torch.tensor(56.5),
        "optimizer": optimizer_state(),
    },
    "PyTorch Lightning": lambda: {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model."),
        "hyper_parameters": defaultdict(dict, {"lr": 0.1, "mode": Mode.FAST}),
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.5), "dirpath": pathlib.Path("/x")}},
    },
    "Lightning and torch.compile": lambda: {"state_dict": prefixed("net._orig_mod.")},
    "DistributedDataParallel of a compiled network": lambda: prefixed("module._orig_mod."),
    "timm": lambda: {
        "arch": "alexnet",
        "state_dict": OrderedDict(backbone()),
        "optimizer": optimizer_state(),
        "version": 2,
        "args": namespace(),
        "metric": np.float64(56.5),
    },
    "float16": lambda: {name: array.half() for name, array in backbone().items()},
    "parameters": lambda: {name: nn.Parameter(array) for name, array in backbone().items()},
    "a state dict": backbone,
}


@pytest.mark.parametrize("tool", CHECKPOINTS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_checkpoints_of_common_tools_are_read(tool: str, legacy: bool, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.ckpt"
    torch.save(CHECKPOINTS[tool](), file, _use_new_zipfile_serialization=not legacy)
    network = read_weights(file)
    assert (network.format, network.variant) == ("torchvision", "one-weird-trick")
    assert network.notes == ()
    tolerance = 1e-2 if tool == "float16" else 0
    for theirs, ours in (("features.3", "conv2"), ("features.10", "conv5")):
        expected = backbone()[f"{theirs}.weight"]
        torch.testing.assert_close(network.weights[f"{ours}.weight"], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net._orig_mod.", "backbone."])
def test_prefixes_in_safetensors_are_removed(prefix: str, tmp_path: Path) -> None:
    save_file(prefixed(prefix), tmp_path / "x.safetensors")
    network = read_weights(tmp_path / "x.safetensors")
    torch.testing.assert_close(network.weights["conv2.bias"], backbone()["features.3.bias"], rtol=0, atol=0)


def test_of_several_state_dicts_the_plain_one_is_read_and_said(tmp_path: Path) -> None:
    file = tmp_path / "model_9.pth"
    averaged = {"n_averaged": torch.tensor(7), **prefixed("module.", seed=1)}
    torch.save({"model_ema": averaged, "model": backbone(), "args": namespace()}, file)
    network = read_weights(file)
    torch.testing.assert_close(network.weights["conv2.bias"], backbone()["features.3.bias"], rtol=0, atol=0)
    (note,) = network.notes
    assert "read model, not model_ema" in note
    assert f"`alexnet import {file} --key model_ema --out run-2`" in note
    chosen = read_weights(file, formats.ReadOptions(key="model_ema"))
    torch.testing.assert_close(chosen.weights["conv2.bias"], backbone(1)["features.3.bias"], rtol=0, atol=0)
    assert chosen.notes == ()
    with pytest.raises(UsageError, match="no state dict 'ema'; there are: model_ema, model"):
        read_weights(file, formats.ReadOptions(key="ema"))


def test_student_and_teacher_in_one_state_dict_are_two(tmp_path: Path) -> None:
    torch.save({"state_dict": {**prefixed("student."), **prefixed("teacher.", 1)}}, tmp_path / "x.ckpt")
    network = read_weights(tmp_path / "x.ckpt")
    torch.testing.assert_close(network.weights["conv2.bias"], backbone()["features.3.bias"], rtol=0, atol=0)
    assert "read state_dict.student, not state_dict.teacher" in network.notes[0]


def test_arrays_beside_the_network_are_left_out_and_named(tmp_path: Path) -> None:
    state = {**prefixed("model."), "criterion.weight": torch.ones(3)}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    assert "1 array beside the network left out (criterion.weight)" in read_weights(tmp_path / "x.ckpt").notes[0]


def test_a_state_dict_in_our_own_layout_needs_its_variant(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = AlexNet("cifar-18pct", 3, init="he").state_dict()
    torch.save({"model_state_dict": {f"module.{name}": array for name, array in state.items()}}, tmp_path / "x.pt")
    with pytest.raises(AlexNetError, match=r"does not say which network it is.* name it with --variant, one of paper"):
        read_weights(tmp_path / "x.pt")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    options = ["--classes", str(tmp_path / "classes.txt"), "--variant", "cifar-18pct", "--out", str(tmp_path / "run")]
    assert main(["import", str(tmp_path / "x.pt"), *options]) == 0
    weights = read_weights(tmp_path / "run").weights
    torch.testing.assert_close(weights["logits.bias"], state["logits.bias"], rtol=0, atol=0)


def test_a_tensor_that_shares_memory_and_has_strides_is_read_as_it_is(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    parts = {"a": whole.T, "b": whole[1:, ::2], "c": whole.bfloat16(), "d": torch.tensor([True, False])}
    for legacy in (False, True):
        torch.save(parts, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
        loaded = load_checkpoint(tmp_path / "x.pt")
        for name, expected in parts.items():
            tensor = loaded[name].load()
            assert tensor.dtype == expected.dtype
            torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


class Network(nn.Module):
    """Somebody's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class Command:
    """Pickled, it is a call of the shell."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def saved(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def scripted() -> bytes:
    content = io.BytesIO()
    torch.jit.save(torch.jit.trace(Network(), torch.zeros(1, 3, 8, 8)), content)
    return content.getvalue()


REFUSED: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "network.pth": (lambda _: saved(Network()), r"a whole pickled network \(.*Network\), .*torch\.save\(model\.state_"),
    "in-a-dict.pth": (lambda _: saved({"model": Network()}), r"'model' is a whole pickled network.*model\.state_dict"),
    "script.pt": (lambda _: scripted(), r"is a TorchScript program.*torch\.jit\.load\(FILE\)\.state_dict\(\)"),
    "arguments.pth": (lambda _: saved(namespace()), r"a pickled object \(argparse\.Namespace\)"),
    "list.pth": (lambda _: saved([torch.ones(2)]), "holds no state dict but a list"),
    "resnet.pth": (
        lambda _: saved({"state_dict": {"conv1.weight": torch.ones(4, 3, 7, 7), "bn1.weight": torch.ones(4)}}),
        r"its keys are state_dict \(with conv1\.weight, bn1\.weight\)",
    ),
    "vgg.pth": (
        lambda _: saved({"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.ones(64)}),
        "its keys are features.0.weight, features.0.bias",
    ),
    "empty.pth": (lambda _: saved({}), "it is empty"),
    "command.pth": (lambda proof: saved({"model": Command(proof)}), "holds no state dict of an AlexNet"),
    "command.pkl": (lambda proof: pickle.dumps(Command(proof), protocol=2), "nothing of it was run"),
    "command4.pkl": (lambda proof: pickle.dumps(Command(proof), protocol=4), "can't be read|nothing of it was run"),
    "bomb.pth": (
        lambda _: zip_bytes({"a/data.pkl": b"\x80\x02N.", "a/data/0": bytes(200 << 20)}),
        "would unpack to 209,715,204 bytes",
    ),
    "lfs.pth": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "page.pth": (lambda _: b"<!DOCTYPE html><html>404</html>", "is a web page"),
    "model.keras": (
        lambda _: zip_bytes({"metadata.json": b"{}", "model.weights.h5": b"x"}),
        "is a Keras model: convert it to ONNX or safetensors first",
    ),
    "served.mar": (lambda _: zip_bytes({"MAR-INF/MANIFEST.json": b"{}"}), "is a zip archive of other files"),
    "keras.h5": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
    "packed.pth.gz": (lambda _: b"\x1f\x8b\x08\x00" + bytes(99), "unpack it first"),
    "empty": (lambda _: b"", "is empty; readable weights are"),
    "text": (lambda _: b"import os", "begins with b'import o'"),
    "image": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(99), "is a PNG image"),
    "truncated.pth": (lambda _: saved(backbone())[:2000], "truncated or damaged archive"),
    "shapes.pth": (
        lambda _: saved({name: torch.zeros(2, 2) for name in backbone()}),
        "features.0.weight is 2×2, not 64×3×11×11",
    ),
    "old-truncated.pth": (lambda _: b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02", "is damaged"),
    "numbers.npy": (lambda _: b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'}", "damaged .npy"),
    "x.onnx": (lambda _: b"\x08\x03\x12\xff\xff", "not an ONNX file"),
    "x.caffemodel": (lambda _: b"\x0a\x04name\x12\xff\x01", "truncated or not Caffe's"),
    "x.safetensors": (lambda _: b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b" " * 9, "can't be read"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_without_weights_is_refused_in_one_line_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = REFUSED[name]
    (tmp_path / name).write_bytes(make(tmp_path / "executed"))
    assert main(["import", str(tmp_path / name), "--out", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert name in line
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_remedies_of_whole_networks_and_programs_work(tmp_path: Path) -> None:
    (tmp_path / "script.pt").write_bytes(scripted())
    for model in (Network(), torch.jit.load(tmp_path / "script.pt")):
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        assert set(load_checkpoint(tmp_path / "weights.pth")) == {"features.0.weight", "features.0.bias"}


def test_damaged_checkpoints_of_every_length_are_one_error(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    for legacy in (False, True):
        torch.save({"conv1.weight": torch.ones(2)}, file, _use_new_zipfile_serialization=not legacy)
        content = file.read_bytes()
        for length in range(16, len(content), 41):
            file.write_bytes(content[:length])
            with pytest.raises(AlexNetError):
                read_pytorch(file)


def test_a_tensor_beyond_its_memory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save({"a": torch.ones(3, 5)}, file, _use_new_zipfile_serialization=False)  # has no checksums
    file.write_bytes(file.read_bytes().replace(b"K\x03K\x05\x86", b"K\x03K\xff\x86"))
    with pytest.raises(AlexNetError, match="is larger than what is stored"):
        load_checkpoint(file)["a"].load()


NAMES = ["배", "사과", "다람쥐"]
WESTERN = ["café", "naïve", "fine"]
CLASS_FILES: dict[str, tuple[bytes, list[str], str]] = {
    "byte order mark": ("a\nb\n".encode("utf-8-sig"), ["a", "b"], ""),
    "UTF-16": ("\n".join(NAMES).encode("utf-16"), NAMES, "UTF-16"),
    "UTF-16 without a mark": (b"a\0b\0\n\0c\0", ["ab", "c"], "UTF-16"),
    "UTF-32": ("\n".join(NAMES).encode("utf-32"), NAMES, "UTF-32"),
    "CP949": ("\r\n".join(NAMES).encode("cp949"), NAMES, "CP949"),
    "CP1252": ("\n".join(WESTERN).encode("cp1252"), WESTERN, "CP1252"),
    "commas": (b"tench, Tinca tinca\ngoldfish, Carassius auratus\n", None, ""),  # type: ignore[dict-item]
    "numbers": (b"0 cat\n1 dog\n2 hen\n", ["cat", "dog", "hen"], "the numbers before the classes"),
    "JSON list": (json.dumps(NAMES).encode(), NAMES, ""),
    "JSON by number": (b'{"0": "cat", "2": "hen", "1": "dog"}', ["cat", "dog", "hen"], ""),
    "JSON of Keras": (b'{"0": ["n01", "cat"], "1": ["n02", "dog"]}', ["cat", "dog"], ""),
    "JSON by name": (b'{"dog": 1, "cat": 0}', ["cat", "dog"], ""),
    "JSON from 1": (b'{"2": "dog", "1": "cat"}', ["cat", "dog"], ""),
    "JSON with a mark": (json.dumps(NAMES).encode("utf-8-sig"), NAMES, ""),
    "JSON of Hugging Face": (b'{"id2label": {"0": "cat", "1": "dog"}}', ["cat", "dog"], ""),
    "JSON of objects": (b'[{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}]', ["cat", "dog"], ""),
    "Python": (b"{1: 'dog, Canis',\n 0: 'cat'}", ["cat", "dog, Canis"], ""),
    "YAML": (b"nc: 2\nnames: ['cat', 'dog']\n", ["cat", "dog"], ""),
    "YAML by line": (b"path: x\nnames:\n  0: cat\n  1: dog\n", ["cat", "dog"], ""),
    "YAML list": (b"names:\r\n- cat\r\n- dog\r\nnc: 2\r\n", ["cat", "dog"], ""),
    "quoted": (b'"cat, small"\r\n"dog"\r\n\r\n  \r\n', ["cat, small", "dog"], ""),
    "one line": (b"cat, dog, hen\n", ["cat", "dog", "hen"], "its only line is a list"),
    "title": (b"Class\ncat\ndog\n", ["cat", "dog"], "the first line, 'Class', is a title"),
    "appended": ("a\r\n\ufeffb\r\n".encode("utf-8-sig"), ["a", "b"], ""),
}


@pytest.mark.parametrize("kind", CLASS_FILES)
def test_class_files_are_read_in_their_encoding(kind: str, tmp_path: Path) -> None:
    content, expected, note = CLASS_FILES[kind]
    (tmp_path / "classes.txt").write_bytes(content)
    names, notes = read_class_names(tmp_path / "classes.txt")
    assert names == (expected or content.decode().split("\n")[:-1])
    assert note in "".join(notes)


@pytest.mark.parametrize(
    "text",
    [
        "class\nÄpfel\nBirnen\n",
        "id;name\n1;Birnen\n0;Äpfel\n",
        "class_id,class_name\n0,Äpfel\n1,Birnen\n",
        '"Äpfel"\n"Birnen"\n',
        "label\tcount\nÄpfel\t3\nBirnen\t7\n",
        "class_id,label\n1.0,Birnen\n0.0,Äpfel\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_a_table_of_a_spreadsheet_program_gives_its_column_of_names(text: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert read_class_names(tmp_path / "classes.csv")[0] == ["Äpfel", "Birnen"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a\nb\na\n", r"names 'a' more than once \(entries 1, 3\)"),
        ("猫\n犬\n".encode("shift_jis"), "its encoding is ambiguous .*shift_jis: '猫'.*iconv -f ENCODING -t UTF-8"),
        (b"a\xff\xfe\x00\n", "ambiguous"),
        (b"one,two\nthree,four\n", r"a table of 2 columns \(one, two\): leave one column"),
        (b'{"0": "a", "2": "b"}', "keys are not the numbers 0 to 1"),
        (b"[1, 2]", "is not a JSON list of class names"),
        (b"[", "is not a JSON list of classes"),
        (b"class_id,label\n7,a\n3,b\n", "column 'class_id' is not the numbers from 0 or 1 on: remove it"),
        (b'{"a": 0, "b": 0}', "gives a number to several classes"),
        (b"a\0\nb\n", r"is not a text file \(it has the character '\\x00'\)"),
    ],
)
def test_class_files_that_are_ambiguous_are_refused_with_the_remedy(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "classes.csv").write_bytes(content)
    with pytest.raises(AlexNetError, match=message):
        read_class_names(tmp_path / "classes.csv")


def test_the_encoding_of_a_class_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.save(AlexNet("cifar-18pct", 3, init="he").state_dict(), tmp_path / "x.pt")
    (tmp_path / "classes.txt").write_bytes("\n".join(NAMES).encode("cp949"))
    import_weights(tmp_path / "x.pt", tmp_path / "run", classes=tmp_path / "classes.txt", variant="cifar-18pct")
    assert "classes.txt was read as CP949" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["classes"] == NAMES


def test_a_registered_format_is_read_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in the documentation of `register_weight_format`."""
    import doctest

    monkeypatch.setattr(formats, "_FORMATS", list(weight_formats()))
    (example,) = doctest.DocTestFinder(recurse=False).find(register_weight_format, "register_weight_format")
    assert len(example.examples) == 5
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
    assert weight_formats()[0].name == "npz"
    assert "(.npz)" in formats.format_list()
    np.savez(tmp_path / "x.npz", **{name: array.numpy() for name, array in backbone().items()})
    assert read_weights(tmp_path / "x.npz").variant == "one-weird-trick"
    with pytest.raises(ValueError, match="'npz' is registered already"):
        register_weight_format(WeightFormat("npz", "", lambda _: False, lambda *_: None))  # type: ignore[arg-type]
