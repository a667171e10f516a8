"""The course: its JavaScript computes what the package computes, its pages work, and its answers are correct."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from axe_playwright_python.base import AXE_FILE_PATH
from torch import nn
from torch.nn import functional

from alexnet.experiments.figure_1 import crossing
from alexnet.learn import digits, write_course
from alexnet.learn.lessons import LESSONS
from alexnet.network.layers import OverhangConv2d
from alexnet.network.normalization import local_response_norm_reference
from alexnet.training.optimizers import PaperSGD

LANGUAGES = ("", "ko/")
# Moves every control and back: names of those that change nothing shown, or whose return does not restore it.
MOVE_ALL = """() => {
    const shown = () => Array.from(document.querySelectorAll('[data-value]'), (e) => e.textContent).join('|')
        + Array.from(document.querySelectorAll('canvas'), (e) => e.toDataURL()).join()
        + Array.from(document.querySelectorAll('svg'), (e) => e.innerHTML).join();
    const tell = (c) => c.dispatchEvent(new Event('input', {bubbles: true}));
    let before = shown();
    return Array.from(document.querySelectorAll('.widget [name]')).filter((c) => {
        const check = c.type === 'checkbox', old = check ? c.checked : c.value;
        if (check) c.checked = !old;
        else if (c.tagName === 'SELECT') c.selectedIndex = c.selectedIndex ? 0 : c.options.length - 1;
        else c.value = old === c.max ? c.min : c.max;
        tell(c);
        const moved = shown() !== before;
        if (check) c.checked = old; else c.value = old;
        tell(c);
        const after = shown(), restored = after === before;
        before = after;
        return !moved || !restored;
    }).map((c) => c.name);
}"""
AXE = """axe.run({ preload: false }).then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.html)]))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_course(tmp_path_factory.mktemp("course")).parent


@pytest.fixture(scope="module")
def compute(site: Path, open_tab: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls one of `Compute` in Chromium."""
    page = open_tab((site / "convolution.html").as_uri()).page
    return lambda call, *arguments: page.evaluate(f"(a) => Array.from([].concat({call}))", list(arguments))


def flat(tensor: torch.Tensor) -> list[float]:
    return tensor.flatten().tolist()


@pytest.mark.parametrize("seed", range(3))
def test_convolution_and_pooling_are_those_of_pytorch(seed: int, compute: Callable[..., Any]) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 3, 23, 23, generator=generator, dtype=torch.float64)
    kernel = torch.randn(1, 3, 5, 5, generator=generator, dtype=torch.float64)
    options = {"stride": seed + 1, "padding": seed, "gain": 0.5, "offset": 0.25, "relu": True}
    found = compute(
        "Array.from(Compute.featureMap(a[0], 23, a[1], 5, a[2]))",
        flat(image[0].permute(1, 2, 0)),
        flat(kernel),
        options,
    )
    expected = functional.conv2d(image, kernel, stride=seed + 1, padding=seed) * 0.5 + 0.25
    np.testing.assert_allclose(found, flat(expected.relu()), atol=1e-5)
    for size, stride in ((3, 2), (2, 2), (3, 3)):
        for average, pool in ((False, functional.max_pool2d), (True, functional.avg_pool2d)):
            options = {"size": size, "stride": stride, "average": average}
            found = compute("Array.from(Compute.pool(a[0], 23, a[1]))", flat(image[0, 0]), options)
            np.testing.assert_allclose(found, flat(pool(image[:, :1], size, stride)), atol=1e-5)


@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_response_normalization_is_that_of_the_package(divide: bool, groups: int, compute: Callable[..., Any]) -> None:
    column = torch.rand(1, 96, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(groups)) * 200
    for n, alpha, beta, k in ((5, 1e-4, 0.75, 2.0), (9, 0.01, 1.2, 0.5), (1, 0.1, 0.3, 1.0)):
        options = {"n": n, "alpha": alpha, "beta": beta, "k": k, "divideByN": divide, "groups": groups}
        found = compute("Compute.localResponseNorm(a[0], a[1])", flat(column), options)
        expected = local_response_norm_reference(column, n, alpha, beta, k, divide_by_n=divide, groups=groups)
        np.testing.assert_allclose(found, flat(expected), rtol=1e-5)


@pytest.mark.parametrize("kind", [OverhangConv2d, nn.Conv2d])
def test_output_sizes_are_those_of_the_layers(kind: type[nn.Conv2d], compute: Callable[..., Any]) -> None:
    for side in range(216, 233, 3):
        for kernel, stride, padding in ((11, 4, 0), (7, 3, 2), (3, 1, 1)):
            layer = kind(1, 1, kernel, stride, padding, device="meta")
            options = {"side": side, "kernel": kernel, "stride": stride, "padding": padding}
            options["overhang"] = kind is OverhangConv2d
            expected = layer(torch.empty(1, 1, side, side, device="meta")).shape[-1]
            assert compute("Compute.outputSize(a[0])", options) == [expected]


def small_network(seed: int, *, tanh: bool = False) -> tuple[nn.Sequential, list[dict[str, Any]]]:
    """A network in float64 with random biases, and its layers as the page has them."""
    built = digits.network((6, 5, 5, 3), seed=seed, tanh=tanh).double()
    with torch.no_grad():
        for layer in digits.layers_of(built):
            layer.bias.normal_(generator=torch.Generator().manual_seed(seed))
    return built, as_layers(built)


def as_layers(built: nn.Sequential) -> list[dict[str, Any]]:
    return [
        {
            "weight": flat(layer.weight),
            "bias": flat(layer.bias),
            "inputs": layer.in_features,
            "outputs": layer.out_features,
        }
        for layer in digits.layers_of(built)
    ]


@pytest.mark.parametrize("name", ["relu", "tanh", "logistic"])
def test_activations_and_gradients_are_those_of_pytorch(name: str, compute: Callable[..., Any]) -> None:
    x = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul(3).requires_grad_()
    expected = {"relu": torch.relu, "tanh": torch.tanh, "logistic": torch.sigmoid}[name](x)
    expected.sum().backward()
    for kind, values in (("value", expected), ("gradient", x.grad)):
        np.testing.assert_allclose(
            compute(f"a[1].map(Compute.activations[a[0]].{kind})", name, flat(x)), flat(values), atol=1e-9
        )


@pytest.mark.parametrize("tanh", [False, True])
def test_training_steps_are_those_of_pytorch_with_the_rule_of_the_package(
    tanh: bool, compute: Callable[..., Any]
) -> None:
    built, layers = small_network(3, tanh=tanh)
    x = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    rule = PaperSGD(built.parameters(), lr=0.1)
    for _ in range(3):
        loss = functional.cross_entropy(built(x), labels)
        rule.zero_grad()
        loss.backward()
        rule.step()
    found = compute(
        """(([layers, x, labels, activation]) => {
            const v = layers.map((one) => [one.weight.map(() => 0), one.bias.map(() => 0)]);
            let loss;
            for (let step = 0; step < 3; step++) {
                const found = Compute.gradients(layers, x, labels, { activation });
                loss = found.loss;
                layers.forEach((one, l) => ["weight", "bias"].forEach((kind, k) =>
                    Compute.paperUpdate(one[kind], v[l][k], found.gradients[l][kind], { lr: 0.1 })));
            }
            return [loss, ...layers.flatMap((one) => [...one.weight, ...one.bias])];
        })(a)""",
        layers,
        x.tolist(),
        labels.tolist(),
        "tanh" if tanh else "relu",
    )
    expected = [
        loss.item(),
        *(v for layer in digits.layers_of(built) for p in (layer.weight, layer.bias) for v in flat(p)),
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_epoch_of_a_target_is_that_of_the_experiment(compute: Callable[..., Any]) -> None:
    for errors in ([0.9, 0.5, 0.2], [0.1, 0.5], [0.9, 0.8], [0.25]):
        found = compute("Compute.crossing(a[0], 0.25)", errors)
        assert found == pytest.approx([crossing(errors, 0.25)])


@pytest.mark.parametrize("folder", LANGUAGES)
@pytest.mark.parametrize("name", [lesson.name for lesson in LESSONS])
def test_every_control_of_a_lesson_works(name: str, folder: str, site: Path, open_tab: Callable[..., Any]) -> None:
    tab = open_tab((site / folder / f"{name}.html").as_uri(), viewport={"width": 360, "height": 800})
    page = tab.page
    page.wait_for_selector("[data-ready=true]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    if not folder:  # the same code computes in both languages
        assert page.evaluate(MOVE_ALL) == []
    for form in page.query_selector_all("form.question"):
        form.query_selector("input").fill(form.get_attribute("data-answer"))
        form.query_selector("button").click()
        assert form.query_selector("[role=status]").get_attribute("class") == "correct"
    assert page.evaluate("JSON.parse(localStorage.getItem('alexnet-course'))") == {name: ["1", "2", "3"]}
    page.evaluate(Path(AXE_FILE_PATH).read_text(encoding="utf-8"))
    violations = page.evaluate(AXE)
    assert violations == []
    assert tab.complaints == []
    assert [address for address in tab.asked if not address.startswith(("file:", "data:"))] == []
    page.context.close()


def test_the_counter_reaches_the_parameters_of_the_paper(site: Path, open_tab: Callable[..., Any]) -> None:
    page = open_tab((site / "convolution.html").as_uri()).page
    page.wait_for_selector("[data-ready=true]")
    assert page.inner_text("[data-value=parameters]") == "60,965,224"
    assert page.inner_text("[data-value=multiplyAdds]") == "724,406,816"
    page.uncheck("[name=towers]")
    assert page.inner_text("[data-value=parameters]") == "62,378,344"


def test_the_site_is_small(site: Path) -> None:
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < 10_000_000
