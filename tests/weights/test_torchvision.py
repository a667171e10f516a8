"""torchvision's networks, rebuilt from their published layouts, against the variants here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision_layouts import torchvision_network

from alexnet import AlexNet, AlexNetError, Classifier, import_weights
from alexnet.weights.torchvision import from_torchvision


class TorchvisionLayout(nn.Module):
    """The layers in the order, and so under the names, that torchvision gives them."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            *(nn.Dropout(0.5), nn.Linear(256 * 6 * 6, 4096), nn.ReLU()),
            *(nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU()),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    return TorchvisionLayout(12).eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [224, 256])
def test_the_logits_are_those_of_torchvisions_layout(theirs: nn.Module, size: int) -> None:
    with torch.device("meta"):
        ours = AlexNet("one-weird-trick", 12).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()), assign=True)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-7)


def test_a_backbone_without_classifier_is_read_and_a_missing_array_is_named(theirs: nn.Module) -> None:
    features = {f"features.{name}": array for name, array in theirs.features.state_dict().items()}
    found = from_torchvision(features)
    assert found.keys() == {f"conv{number}.{kind}" for number in range(1, 6) for kind in ("weight", "bias")}
    assert found["conv5.weight"] is features["features.10.weight"]
    del features["features.10.bias"]
    with pytest.raises(AlexNetError, match=r"features\.10\.bias is missing$"):
        from_torchvision(features)


def test_dropout_is_on_the_inputs_of_fc6_and_fc7_as_in_torchvision() -> None:
    with torch.device("meta"):
        names = AlexNet("one-weird-trick").layer_names()
    assert names[names.index("pool5") :] == ["pool5", "drop5", "fc6", "relu6", "drop6", "fc7", "relu7", "logits"]


def test_missing_unknown_and_wrongly_shaped_arrays_are_named(theirs: nn.Module) -> None:
    state = dict(theirs.state_dict())
    state["features.3.weight"] = torch.zeros(256, 48, 5, 5)
    state["features.1.running_mean"] = torch.zeros(64)
    del state["classifier.4.bias"]
    with pytest.raises(AlexNetError) as error:
        from_torchvision(state)
    message = str(error.value)
    assert "classifier.4.bias is missing" in message
    assert "features.1.running_mean is unknown" in message
    assert "features.3.weight is 256×48×5×5, not 192×64×5×5" in message


@torch.no_grad()
@pytest.mark.parametrize("name", ["vgg11", "vgg16", "resnet18", "resnet50"])
def test_vgg_and_resnet_compute_the_logits_of_torchvisions_networks(name: str) -> None:
    network = torchvision_network(name, 5)
    with torch.device("meta"):
        ours = AlexNet(name, 5).eval()
    ours.load_state_dict(from_torchvision(network.state_dict()), assign=True)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    expected = network(x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    if name.startswith("resnet"):  # as files of torch before 0.4.1 are
        without = {key: array for key, array in network.state_dict().items() if not key.endswith("num_batches_tracked")}
        assert torch.equal(from_torchvision(without)["logits.weight"], network.fc.weight)


@torch.no_grad()
def test_an_imported_resnet_predicts_as_torchvision_does_with_its_preprocessing(tmp_path: Path) -> None:
    network = torchvision_network("resnet18", 3)
    torch.save({f"module.{key}": array for key, array in network.state_dict().items()}, tmp_path / "resnet18.pth")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    import_weights(tmp_path / "resnet18.pth", tmp_path / "run", classes=tmp_path / "classes.txt")
    classifier = Classifier.load(tmp_path / "run")
    assert classifier.config.recipe.variant == "resnet18"
    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    crops = torch.from_numpy(images[:, 16:240, 16:240]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = network((crops - mean) / std).softmax(1)
    found = torch.from_numpy(np.asarray(classifier.probabilities(images, views=1))).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_another_resnet_is_named_by_what_does_not_fit(tmp_path: Path) -> None:
    state = dict(torchvision_network("resnet18", 3).state_dict())
    state["layer1.2.conv1.weight"] = torch.zeros(64, 64, 3, 3)  # as ResNet-34 has
    with pytest.raises(AlexNetError, match=r"torchvision's resnet18: layer1\.2\.conv1\.weight is unknown"):
        from_torchvision(state)
