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

from alexnet.learn import write_course
from alexnet.learn.lessons import LESSONS
from alexnet.network.layers import OverhangConv2d
from alexnet.network.normalization import local_response_norm_reference

LANGUAGES = ("", "ko/")
MOVE = """(c) => { const old = c.type === 'checkbox' ? c.checked : c.value;
    if (c.type === 'checkbox') c.checked = !c.checked;
    else if (c.tagName === 'SELECT') c.selectedIndex = c.options.length - 1;
    else c.value = c.value === c.max ? c.min : c.max;
    c.dispatchEvent(new Event('input', {bubbles: true})); return old; }"""
RESTORE = """(c, old) => { if (c.type === 'checkbox') c.checked = old; else c.value = old;
    c.dispatchEvent(new Event('input', {bubbles: true})); }"""
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


@pytest.mark.parametrize("folder", LANGUAGES)
@pytest.mark.parametrize("name", [lesson.name for lesson in LESSONS])
def test_every_control_of_a_lesson_works(name: str, folder: str, site: Path, open_tab: Callable[..., Any]) -> None:
    tab = open_tab((site / folder / f"{name}.html").as_uri(), viewport={"width": 360, "height": 800})
    page = tab.page
    page.wait_for_selector("[data-ready=true]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    read = """Array.from(document.querySelectorAll('[data-value]'), (e) => e.textContent).join('|')
        + Array.from(document.querySelectorAll('canvas'), (e) => e.toDataURL()).join()
        + Array.from(document.querySelectorAll('svg'), (e) => e.innerHTML).join()"""
    for control in page.query_selector_all(".widget [name]"):
        before = page.evaluate(read)
        old = control.evaluate(MOVE)
        assert page.evaluate(read) != before, control.get_attribute("name")
        control.evaluate(RESTORE, old)
        assert page.evaluate(read) == before, control.get_attribute("name")
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
