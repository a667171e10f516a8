"""The network on the page: drawing, receptive fields, top activations, optimized images."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from alexnet import AlexNet, Classifier, list_variants
from alexnet.data.dataset import PreparedDataset
from alexnet.network.layers import ResidualBlock
from alexnet.network.model import towers_of
from alexnet.serve.activation_maximization import optimized_image
from alexnet.serve.excitation import DatasetScan, receptive_field
from alexnet.serve.network_drawing import drawing
from alexnet.serve.tasks import center_inputs

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("variant", list_variants())
def test_every_variant_is_drawn_with_its_towers(variant: str) -> None:
    with torch.device("meta"):
        network = AlexNet(variant, 7)
    image = ElementTree.fromstring(drawing(network, network.input_size))
    layers = {group.get("data-layer"): group for group in image.iter(f"{SVG}g") if group.get("data-layer")}
    shown = {*network.weighted_layers(), network.feature_layer}
    assert list(layers) == [name for name, _ in network.named_children() if name in shown]
    towers = towers_of(network)
    assert {len(group.findall(f"{SVG}rect")) for name, group in layers.items() if name != "logits"} == {towers}
    assert len(layers["logits"].findall(f"{SVG}rect")) == 1
    # Of the paper's layers only conv3 and the fully connected ones read both towers.
    reading = [n for n in layers if n.startswith("fc") or n in ("conv3", "conv6")]
    crossing = sum(path.get("class") == "cross" for path in image.iter(f"{SVG}path"))
    assert crossing == (2 * len(reading) if towers == 2 else 0)
    blocks = [name for name, module in network.named_children() if isinstance(module, ResidualBlock)]
    assert sum(path.get("class") == "shortcut" for path in image.iter(f"{SVG}path")) == len(blocks)
    # Everything is within the view box.
    _, _, width, height = map(float, image.get("viewBox", "").split())
    for rect in image.iter(f"{SVG}rect"):
        assert 0 <= float(rect.get("x", -1)) < float(rect.get("x", 0)) + float(rect.get("width", 0)) <= width
        assert 0 <= float(rect.get("y", -1)) < float(rect.get("y", 0)) + float(rect.get("height", 0)) <= height
    assert all(0 < float(text.get("y", 0)) < height for text in image.iter(f"{SVG}text"))
    colors = [int(group.get("data-color", -1)) for group in layers.values()]
    assert colors == sorted(colors)
    assert (colors[0], colors[-1]) == (0, 8)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv5"])
def test_the_receptive_field_is_where_the_gradient_is_not_zero(layer: str) -> None:
    torch.manual_seed(0)
    network = AlexNet("paper", 2, init="he").eval()
    x = torch.randn(1, 3, 195, 195, requires_grad=True)
    field = receptive_field(network, layer)
    assert field is not None
    # Before the ReLU of the layer, so that no gradient is zero; normalization only reads across channels.
    maps = dict(network.iter_features(x, [layer]))[layer]
    row, column = maps.shape[2] // 2, maps.shape[3] // 2 + 1
    (gradient,) = torch.autograd.grad(maps[0, :, row, column].sum(), x)
    touched = gradient[0].abs().amax(0) > 0
    for place, axis in ((row, 1), (column, 0)):
        where = torch.nonzero(touched.any(axis))[:, 0]
        first = max(0, field.start + place * field.step)
        last = min(195, field.start + place * field.step + field.size)
        # At the edge a pooling window may not contain the maximum.
        assert first <= int(where.min()) <= first + 8
        assert last - 8 <= int(where.max()) + 1 <= last


def test_the_scan_finds_the_largest_activations_of_each_unit(classifier: Classifier, striped_data) -> None:  # type: ignore[no-untyped-def]
    dataset = PreparedDataset.open(striped_data)
    layers = ["conv1", "conv4", "fc7", "logits"]
    scan = DatasetScan(classifier, dataset, layers)
    for _ in scan.steps():
        pass
    train = dataset.split("train")
    inputs = center_inputs(classifier, train.gather(np.arange(len(train))))
    for layer in layers:
        with torch.inference_mode():
            activations = classifier.network.features(inputs, layer)
        values = activations.flatten(2).amax(2) if activations.ndim > 2 else activations
        top = scan.top_activations[layer]
        torch.testing.assert_close(top.values, values.T.topk(9, dim=1).values, rtol=1e-3, atol=1e-4)
        unit = 3 if layer != "logits" else 1
        for value, position, place in zip(top.values[unit], top.positions[unit], top.places[unit], strict=True):
            there = activations[position, unit].flatten()[place]
            torch.testing.assert_close(there, value, rtol=1e-3, atol=1e-4)
    val = dataset.split("val")
    wanted = classifier.probabilities(val.gather(np.arange(len(val)))).argmax(1)
    assert scan.predictions is not None
    assert (scan.predictions.ranked[:, 0] == wanted).all()


@pytest.mark.parametrize(("layer", "unit"), [("conv2", 2), ("logits", 1)])
def test_the_optimized_image_activates_the_unit_more_than_any_image_of_the_data(
    classifier: Classifier,
    striped_data,  # type: ignore[no-untyped-def]
    layer: str,
    unit: int,
) -> None:
    steps = optimized_image(classifier, layer, unit)
    count = 0
    while True:
        try:
            next(steps)
            count += 1
        except StopIteration as end:
            image = end.value
            break
    assert count > 10
    train = PreparedDataset.open(striped_data).split("train")
    stored = train.gather(np.arange(len(train)))
    side = len(image)
    edge = (stored.shape[1] - side) // 2
    rest = stored[:, edge : edge + side, edge : edge + side]
    size = classifier.config.size
    whole = np.zeros((len(rest) + 1, size, size, 3), dtype=np.uint8)
    whole[:, edge : edge + side, edge : edge + side] = np.concatenate([image[None], rest])
    network = classifier.network
    with torch.inference_mode():
        x = center_inputs(classifier, whole)
        read = dict(network.iter_features(x, [name for name in (layer,) if layer != "logits"]))
        activations = read[layer] if read else network(x)
    strength = activations[:, unit].flatten(1).mean(1) if activations.ndim > 2 else activations[:, unit]
    assert strength[0] > 1.2 * strength[1:].max()
