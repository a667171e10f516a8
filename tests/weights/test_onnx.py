"""ONNX: exported files in ONNX Runtime and our forward pass; imported ones and the package's AlexNet."""

import json
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_torchvision import TorchvisionLayout
from torch import Tensor

from alexnet import AlexNet, AlexNetError, list_variants
from alexnet.data.augmentation import Preprocessing
from alexnet.network.layers import CodeDistances
from alexnet.prediction.inputs import load_image
from alexnet.runs.config import Config
from alexnet.runs.recipe import recipes
from alexnet.weights.onnx_reader import from_onnx, read_onnx
from alexnet.weights.onnx_writer import to_onnx

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
PHOTOGRAPHS = Path(__file__).parents[2] / "../shared/data/imagenet-samples.zip"
CLASSES = 7
SWITCHES = [
    {},
    {"normalization": "batch"},
    {"normalization": "none"},
    {"activation": "tanh"},
    {"pooling": "non-overlapping"},
    {"drop_layer": "conv4"},
]
CIFAR = [name for name in list_variants() if name.startswith("cifar")]
NEIGHBORS = [name for name in list_variants() if name.startswith(("lenet", "vgg", "resnet"))]
ALEXNETS = [name for name in list_variants() if name not in NEIGHBORS]
QUICKLY = ("paper", "cifar-18pct")
"""The variants of which `make test` exports every switch; of the others only the network itself."""
SMALL_SIDE = {"vgg11": 64, "vgg16": 64, "resnet18": 64, "resnet50": 64}


def combinations(variants: list[str], switches: list[dict[str, str]]) -> list[Any]:
    """Every variant with every switch."""
    return [
        pytest.param(variant, each, marks=[pytest.mark.long] * (bool(each) and variant not in QUICKLY))
        for variant, each in product(variants, switches)
        if variant not in CIFAR or "drop_layer" not in each
    ]


def narrow(variant: str, **switches: str) -> AlexNet:
    """A variant with 7 classes, all its layers, and fc6 and fc7 of 24 units: the file stays small."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = AlexNet(variant, CLASSES, **switches)
        if hasattr(network, "fc6"):
            network.fc6 = torch.nn.Linear(network.fc6.in_features, 24)
            network.fc7 = torch.nn.Linear(24, 24)
            network.logits = torch.nn.Linear(24, CLASSES)
    network.to_empty(device="cpu").initialize("he")
    if isinstance(network.logits, CodeDistances):
        network.logits.codes.copy_(AlexNet(variant, CLASSES).logits.codes)
        for pool in (network.pool1, network.pool2):
            torch.nn.init.normal_(pool.weight, 1, 0.1)
            torch.nn.init.normal_(pool.bias, 0, 0.1)
    else:
        torch.nn.init.normal_(network.logits.weight, 0, 0.3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.num_batches_tracked.zero_()
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return network.eval()


def described(variant: str, side: int, **switches: str) -> str:
    """A config.json for such a network."""
    recipe = recipes()["paper"].override({"variant": variant, **switches})
    classes = [f"class {i}" for i in range(CLASSES)]
    config = Config(recipe=recipe, classes=classes, size=256, crop_size=side, input_size=side, scale=1 / 60, dataset={})
    return json.dumps(config.to_dict())


def answers(model: "onnx.ModelProto", x: Tensor) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "switches"),
    [
        *combinations(ALEXNETS, SWITCHES),
        *product(NEIGHBORS, [{}]),
        ("resnet18", {"normalization": "none", "pooling": "non-overlapping", "drop_layer": "block2_2"}),
        ("lenet5", {"pooling": "overlapping"}),
    ],
    ids=str,
)
def test_onnx_runtime_gives_the_same_logits(variant: str, switches: dict[str, str]) -> None:
    network = narrow(variant, **switches)
    side = SMALL_SIDE.get(variant, network.input_size)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 50
    expected = network(x).numpy()
    found = answers(to_onnx(network, input_size=side), x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "one-weird-trick", "released-2012"])
@pytest.mark.parametrize("side", [131, 195, 256])
def test_other_input_sizes_are_averaged_to_the_input_of_fc6(variant: str, side: int) -> None:
    network = narrow(variant)
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1)) * 50
    expected = network(x).softmax(1).numpy()
    np.testing.assert_allclose(answers(to_onnx(network, input_size=side, softmax=True), x), expected, atol=1e-5)


@pytest.fixture(scope="session")
def photographs() -> Tensor:
    if not PHOTOGRAPHS.exists():
        pytest.skip(f"the photographs are not there: {PHOTOGRAPHS}")
    with zipfile.ZipFile(PHOTOGRAPHS) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))[::50]
        return torch.from_numpy(np.stack([load_image(archive.read(name), 256) for name in names]))


@torch.no_grad()
@pytest.mark.parametrize("variant", ALEXNETS)
def test_real_photographs_have_the_same_five_most_probable_classes(variant: str, photographs: Tensor) -> None:
    network = narrow(variant)
    mean = photographs.float().mean(0)
    preprocess = Preprocessing(mean, crop_size=network.input_size, scale=1 / 60)
    expected = network(preprocess.center(photographs)).softmax(1).numpy()
    found = answers(to_onnx(network, preprocess=preprocess, softmax=True), photographs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal((-found).argsort(1)[:, :5], (-expected).argsort(1)[:, :5])


@torch.no_grad()
@pytest.mark.parametrize("side", [None, 195])
def test_the_preprocessing_inside_is_that_of_the_center_crop(side: int | None) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (2, 256, 256, 3), generator=generator, dtype=torch.uint8)
    mean = torch.rand(256, 256, 3, generator=generator) * 200
    preprocess = Preprocessing(mean, crop_size=227, scale=1 / 60, input_size=side)
    network = narrow("paper")
    expected = network(preprocess.center(images)).numpy()
    found = answers(to_onnx(network, preprocess=preprocess), images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "switches"),
    [
        *combinations(["paper", "one-weird-trick", "caffenet", "released-2012", "released-2012-six-conv"], SWITCHES),
        *combinations(CIFAR, SWITCHES[:4]),
        ("lenet5-1998", {}),
        ("resnet18", {}),
    ],
    ids=str,
)
def test_an_export_is_imported_bitwise_identical(variant: str, switches: dict[str, str], tmp_path: Path) -> None:
    network = narrow(variant, **switches)
    generator = torch.Generator().manual_seed(1)
    mean = torch.rand(256, 256, 3, generator=generator) * 200
    side = 180 if switches and variant not in CIFAR else network.input_size
    preprocess = Preprocessing(mean, crop_size=side, scale=1 / 60)
    model = to_onnx(network, preprocess=preprocess, config=described(variant, side, **switches))
    found = from_onnx(model.SerializeToString())
    assert found.config is not None
    assert found.config.recipe.variant == variant
    assert found.config.switches == switches
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=0)
    again = narrow(variant, **switches)
    again.initialize("paper")
    again.load_state_dict(found.weights)
    x = torch.randn(2, 3, side, side, generator=generator)
    torch.testing.assert_close(again(x), network(x), rtol=0, atol=0)


def test_a_locally_connected_layer_with_other_windows_is_refused() -> None:
    model = to_onnx(narrow("cifar-13pct"))
    copies = next(tensor for tensor in model.graph.initializer if tensor.name == "local3.copies")
    kernels = onnx.numpy_helper.to_array(copies)
    for other, message in (
        (np.roll(kernels, 1, 2), r"its weights fit cifar-13pct.*, but .* its outputs differ by"),
        (np.zeros((1, 1, 1, 10**6), np.float32), "ONNX Runtime can't run it"),
    ):
        copies.CopyFrom(onnx.numpy_helper.from_array(other, copies.name))
        with pytest.raises(AlexNetError, match=message):
            from_onnx(model.SerializeToString())


@torch.no_grad()
def test_8_bit_weights_change_little_and_are_imported(photographs: Tensor) -> None:
    network = narrow("caffe")
    preprocess = Preprocessing(photographs.float().mean(0), crop_size=227, scale=1 / 60)
    model = to_onnx(network, preprocess=preprocess, config=described("caffe", 227), softmax=True, int8=True)
    stored = sum(len(t.raw_data) for t in model.graph.initializer if t.name.endswith(".int8"))
    assert stored == sum(p.numel() for p in network.parameters() if p.dim() > 1)
    expected = network(preprocess.center(photographs)).softmax(1).numpy()
    found = answers(model, photographs)
    assert 1e-6 < np.abs(found - expected).max() < 0.05
    network.load_state_dict(from_onnx(model.SerializeToString()).weights)
    np.testing.assert_allclose(network(preprocess.center(photographs)).softmax(1).numpy(), found, atol=1e-5)


@torch.no_grad()
def test_the_onnx_packages_own_alexnet_gives_its_published_output() -> None:
    found = from_onnx((LIGHT / "light_bvlc_alexnet.onnx").read_bytes())
    assert (found.variant, found.crop_size) == ("caffe", 224)
    with torch.device("meta"):
        network = AlexNet("caffe", 1000)
    network.load_state_dict(found.weights, assign=True)
    # Input and expected output of the package's own backend test.
    x = (np.arange(3 * 224 * 224, dtype=np.float64) / (3 * 224 * 224)).astype(np.float32).reshape(1, 3, 224, 224)
    stored = onnx.TensorProto()
    stored.ParseFromString((LIGHT / "light_bvlc_alexnet_output_0.pb").read_bytes())
    probabilities = network.eval()(torch.from_numpy(x)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, onnx.numpy_helper.to_array(stored), rtol=1e-3, atol=1e-7)


@torch.no_grad()
def test_its_graph_with_random_weights_gives_the_outputs_of_onnx_runtime() -> None:
    model = onnx.load(LIGHT / "light_bvlc_alexnet.onnx")
    rng = np.random.default_rng(0)
    sides = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    fills = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    for node in fills:
        shape = [24 if s == 4096 else 7 if s == 1000 else int(s) for s in sides[node.input[0]]]
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        values = (rng.standard_normal(shape) * scale).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    model.ir_version = 8
    for entry in [i for i in model.graph.input if i.name.endswith("__SHAPE")]:
        model.graph.input.remove(entry)
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_value = 7
    model.graph.node.remove(model.graph.node[-1])
    model.graph.output[0].name = model.graph.node[-1].output[0]
    x = rng.uniform(-120, 120, (1, 3, 224, 224)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"data_0": x})[0]
    network = narrow("caffe")
    network.load_state_dict(from_onnx(model.SerializeToString()).weights)
    logits = network(torch.from_numpy(x[:, ::-1].copy())).numpy()  # theirs has blue first, ours red
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_torchs_own_export_of_torchvisions_layout_is_imported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = TorchvisionLayout(CLASSES).eval()
    theirs.classifier[1] = torch.nn.Linear(9216, 24)
    theirs.classifier[4] = torch.nn.Linear(24, 24)
    theirs.classifier[6] = torch.nn.Linear(24, CLASSES)
    x = torch.randn(2, 3, 224, 224)
    torch.onnx.export(theirs, x, tmp_path / "x.onnx", dynamo=False)
    found = from_onnx((tmp_path / "x.onnx").read_bytes())
    assert (found.variant, found.crop_size) == ("one-weird-trick", 224)
    network = narrow("one-weird-trick")
    network.load_state_dict(found.weights)
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255
    torch.testing.assert_close(network(x * deviation * found.scale), theirs(x), rtol=1e-4, atol=1e-5)


def test_other_networks_are_refused_with_the_difference() -> None:
    with pytest.raises(AlexNetError, match=r"squeezenet\.onnx"):
        from_onnx((LIGHT / "light_squeezenet.onnx").read_bytes(), "squeezenet.onnx")
    model = to_onnx(narrow("paper"))
    content = model.SerializeToString()
    norms = [node for node in model.graph.node if node.op_type == "LRN"]
    for norm in norms:
        next(a for a in norm.attribute if a.name == "alpha").f *= 1.05
    with pytest.raises(AlexNetError, match=r"other\.onnx .*its weights fit paper, but .* its outputs differ by"):
        from_onnx(model.SerializeToString(), "other.onnx")
    next(a for a in model.graph.node[0].attribute if a.name == "strides").ints[:] = [5, 5]
    with pytest.raises(AlexNetError, match=r"other\.onnx is damaged, ONNX Runtime can't run it: .*fc6"):
        from_onnx(model.SerializeToString(), "other.onnx")
    kernels = next(tensor for tensor in model.graph.initializer if tensor.name == "conv2.weight")
    kernels.CopyFrom(onnx.numpy_helper.from_array(np.zeros((256, 48, 7, 7), np.float32), kernels.name))
    with pytest.raises(AlexNetError, match=r"layer 2 with weights has weight 256×48×7×7, .* not weight 256×48×5×5"):
        from_onnx(model.SerializeToString(), "other.onnx")
    with pytest.raises(AlexNetError, match=r"truncated\.onnx"):
        from_onnx(content[: len(content) // 2], "truncated.onnx")
    with pytest.raises(AlexNetError, match="does not say what it reads"):
        from_onnx(content, "paper.onnx")


def test_an_untrained_network_with_constant_outputs_is_identified() -> None:
    network = narrow("caffenet")
    torch.nn.init.zeros_(network.logits.weight)  # as before a training: all outputs are equal
    torch.nn.init.zeros_(network.logits.bias)
    assert from_onnx(to_onnx(network).SerializeToString()).variant == "caffenet"


def in_two_files(folder: Path, model: "onnx.ModelProto") -> Path:
    """The model as torch exports it since 2.9: its weights in a second file."""
    file = folder / "model.onnx"
    onnx.save_model(model, file, save_as_external_data=True, location="model.onnx.data", size_threshold=256)
    return file


def test_weights_in_a_second_file_are_read_from_the_same_folder_only(tmp_path: Path) -> None:
    network = narrow("caffe")
    (tmp_path / "export").mkdir()
    file = in_two_files(tmp_path / "export", to_onnx(network))
    weights = file.with_name("model.onnx.data")
    assert file.stat().st_size < 100_000 < weights.stat().st_size
    found = read_onnx(file)
    torch.testing.assert_close(found.weights["conv2.weight"], network.conv2.weight.detach(), rtol=0, atol=0)

    weights.rename(tmp_path / "outside")
    with pytest.raises(AlexNetError, match=r"model\.onnx\.data, which is missing: put both files into one folder"):
        read_onnx(file)
    weights.symlink_to(tmp_path / "outside")
    with pytest.raises(AlexNetError, match="a link that leads out of its folder"):
        read_onnx(file)
    weights.unlink()
    weights.write_bytes((tmp_path / "outside").read_bytes()[:1000])
    with pytest.raises(AlexNetError, match=r"model\.onnx\.data is truncated"):
        read_onnx(file)
    for location in ("../outside", str(tmp_path / "outside"), "..", ""):
        model = onnx.load_model(file, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        with pytest.raises(AlexNetError, match="is not in its folder: it was not read"):
            from_onnx(model.SerializeToString(), file)


def test_biases_of_zero_that_an_exporter_left_out_are_read() -> None:
    network = narrow("caffe")  # its biases are zero, as torch's exporter leaves them out
    model = to_onnx(network)
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            del node.input[2:]
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name.endswith(".bias")]:
        model.graph.initializer.remove(tensor)
    found = from_onnx(model.SerializeToString())
    assert found.variant == "caffe"
    assert found.weights.keys() == network.state_dict().keys()
    assert not found.weights["conv2.bias"].any()


def test_unknown_operators_are_refused_before_anything_runs() -> None:
    model = to_onnx(narrow("caffe"))
    model.graph.node[-1].op_type = "Loop"
    with pytest.raises(AlexNetError, match="the operator Loop"):
        from_onnx(model.SerializeToString())


def test_weights_outside_the_folder_and_excessive_arrays_are_refused() -> None:
    model = to_onnx(narrow("caffe"))
    outside = model.graph.initializer[0]
    name = outside.name
    outside.ClearField("raw_data")
    outside.data_location = onnx.TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    with pytest.raises(AlexNetError, match=f"keeps {name} in another file"):
        from_onnx(model.SerializeToString(), "outside.onnx")
    model = onnx.load(LIGHT / "light_bvlc_alexnet.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "fc6_w_0__SHAPE":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20]), tensor.name))
    with pytest.raises(AlexNetError, match="more numbers than any AlexNet"):
        from_onnx(model.SerializeToString(), "bomb.onnx")
