"""The course: its JavaScript computes what the package computes, its pages work, and its answers are correct."""

import json
import shutil
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from axe_playwright_python.base import AXE_FILE_PATH
from displayed import NUMBERS, SET, assert_displayed
from nbclient import NotebookClient
from torch import nn
from torch.nn import functional

from alexnet import AlexNetError
from alexnet.data.augmentation import PCAColor
from alexnet.data.statistics import pixel_sum, statistics
from alexnet.evaluation.views import VIEWS
from alexnet.experiments import towers
from alexnet.experiments.catalog import shipped_results
from alexnet.experiments.figure_1 import crossing
from alexnet.learn import digits, open_course, write_course, write_notebooks
from alexnet.learn.lessons import LESSONS
from alexnet.learn.notebooks import notebook
from alexnet.network.layers import OverhangConv2d
from alexnet.network.normalization import local_response_norm_reference
from alexnet.parallel.plan import Work
from alexnet.search.exact import nearest
from alexnet.training.optimizers import PaperSGD

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


@pytest.mark.parametrize(("name", "kind"), [("paper", PaperSGD), ("torch", torch.optim.SGD)])
def test_two_weights_move_as_with_the_optimizers(name: str, kind: Any, compute: Callable[..., Any]) -> None:
    weights = torch.tensor([-4.0, 1.6], dtype=torch.float64, requires_grad=True)
    options = {"lr": 0.07, "momentum": 0.8, "decay": 0.01, "ratio": 5, "steps": 9, "drop": 4}
    rule = kind([weights], lr=0.07, momentum=0.8, weight_decay=0.01)
    for step in range(9):
        rule.param_groups[0]["lr"] = 0.07 if step < 4 else 0.007
        rule.zero_grad()
        (weights.square() @ torch.tensor([0.5, 2.5], dtype=torch.float64)).backward()
        rule.step()
    found = compute(f"Compute.descent(Compute.{name}Update, [-4, 1.6], a[0])[9].slice(0, 2)", options)
    np.testing.assert_allclose(found, flat(weights), atol=1e-9)


def test_the_scale_of_every_layer_is_that_of_pytorch(compute: Callable[..., Any]) -> None:
    built, layers = small_network(8)
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    outputs = [built[:2](x), built[:4](x), built(x)]
    found = compute("Compute.layerScales(a[0], a[1])", layers, x.tolist())
    np.testing.assert_allclose(found, [output.std(correction=0).item() for output in outputs], atol=1e-9)


@pytest.mark.parametrize("unit", ["eigenvalues", "std"])
def test_colors_change_as_in_the_package(unit: str, compute: Callable[..., Any]) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 200, (2, 9, 9, 3)).astype(np.uint8)
    images[..., 1] = images[..., 0] // 2 + images[..., 1] // 4
    pixels = images.reshape(-1, 3).astype(np.int64)
    colors = statistics(pixel_sum(images).astype(np.int64), pixels.T @ pixels, len(images))
    alphas = [0.1, -0.2, 0.3]
    found = compute(
        """(([images, alphas, unit]) => {
            const found = Compute.colorComponents(images);
            return [...found.values, ...found.vectors.flat(), ...Compute.colorOffset(found, alphas, unit)];
        })(a)""",
        [image.flatten().tolist() for image in images],
        alphas,
        unit,
    )
    shift = PCAColor(colors.eigenvectors, colors.eigenvalues, unit=unit).shifts(torch.tensor([alphas]))
    np.testing.assert_allclose(found, [*colors.eigenvalues, *colors.eigenvectors.flatten(), *flat(shift)], rtol=1e-5)


def test_ten_views_are_those_of_the_package(compute: Callable[..., Any]) -> None:
    image = torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = compute(
        "Compute.tenViews(8, 6).flatMap((view) => Array.from(Compute.crop(a[0], 8, { ...view, channels: 1 })))",
        flat(image),
    )
    crops = [image[top : top + 6, left : left + 6] for top, left in VIEWS[10].offsets(8, 6)]
    np.testing.assert_array_equal(found, [v for crop in crops for view in (crop, crop.flip(1)) for v in flat(view)])


def test_saturation_and_its_test_are_those_of_the_experiment(compute: Callable[..., Any]) -> None:
    kernels = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    kernels[:2, 1:] = kernels[:2, :1]
    found = compute("a[0].map(Compute.saturation)", [flat(kernel) for kernel in kernels])
    np.testing.assert_allclose(found, towers.saturation(kernels), atol=1e-5)
    values = np.random.default_rng(3).random(40)
    values[:20] += 0.1
    found = compute("Compute.permutationTest(a[0], 4000, 0).p", values.tolist())
    assert found == pytest.approx([towers.permutation_p(values, 4000)], abs=0.03)


def test_bytes_between_the_towers_are_those_that_were_counted(site: Path, compute: Callable[..., Any]) -> None:
    rows = json.loads((shipped_results() / "parallel.json").read_text())["exchange"]["rows"]
    row = next(row for row in rows if row["layout"] == "towers")
    inputs = list(Work.of("paper").crossing)
    options = {"inputs": inputs, "classes": 1000, "batch": row["batch"], "bytes": 4}
    assert compute("Compute.towerBytes(a[0])", options) == [row["bytes_counted"]]


def test_nearest_rows_are_those_of_the_search(compute: Callable[..., Any]) -> None:
    rng = np.random.default_rng(4)
    rows, query = rng.random((30, 7)).astype(np.float32), rng.random((1, 7)).astype(np.float32)
    distances, found = nearest(query, rows, 5)
    expected = np.stack([found[0], distances[0]], axis=1).flatten()
    result = compute("Compute.nearest(a[0], a[1], 5).flat()", query[0].tolist(), rows.tolist())
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_sub_networks_are_those_of_pytorch(compute: Callable[..., Any]) -> None:
    built, layers = small_network(5)
    x = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    first, second = torch.tensor([1, 0, 1, 1, 0.0]), torch.tensor([0, 1, 1, 0, 1.0])
    hidden = built[1](built[0](x)) * first / 0.7
    expected = built[4](built[3](built[2](hidden)) * second / 0.7)
    options = {"masks": [first.tolist(), second.tolist()], "keep": 0.7}
    np.testing.assert_allclose(
        compute("Array.from(Compute.forward(...a).logits)", layers, flat(x), options), flat(expected)
    )
    # Halving is exact for the geometric mean over all sub-networks of the last hidden layer.
    masks = [list(map(float, f"{number:05b}")) for number in range(32)]
    found = compute(
        """(([layers, x, masks]) => Compute.geometricMean(masks.map((mask) =>
            Compute.softmax(Compute.forward(layers, x, { masks: [null, mask], keep: 0.5 }).logits))))(a)""",
        layers,
        flat(x),
        masks,
    )
    np.testing.assert_allclose(found, flat(built(x).softmax(0)), atol=1e-9)


def test_the_epoch_of_a_target_is_that_of_the_experiment(compute: Callable[..., Any]) -> None:
    for errors in ([0.9, 0.5, 0.2], [0.1, 0.5], [0.9, 0.8], [0.25]):
        found = compute("Compute.crossing(a[0], 0.25)", errors)
        assert found == pytest.approx([crossing(errors, 0.25)])


# The code is the same in both languages: in Korean, and in the dark, one lesson is enough for the short run.
PAGES = [
    *(pytest.param(lesson.name, "", "light", id=lesson.name) for lesson in LESSONS),
    *(
        pytest.param(lesson.name, "ko/", "dark", id=f"{lesson.name}-ko", marks=[pytest.mark.long] * bool(number))
        for number, lesson in enumerate(LESSONS)
    ),
]


@pytest.mark.parametrize(("name", "folder", "scheme"), PAGES)
def test_every_control_of_a_lesson_works(
    name: str, folder: str, scheme: str, site: Path, open_tab: Callable[..., Any]
) -> None:
    address, viewport = (site / folder / f"{name}.html").as_uri(), {"width": 360, "height": 800}
    tab = open_tab(address, viewport=viewport, color_scheme=scheme)
    page = tab.page
    page.wait_for_selector("[data-ready=true]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    if not folder:  # the same code computes in both languages
        assert page.evaluate(MOVE_ALL) == []
        settings, numbers = NUMBERS[name](lambda call, *arguments: page.evaluate(f"(a) => {call}", list(arguments)))
        texts = page.evaluate(SET, [settings])
        assert_displayed(texts, numbers)
        assert texts.keys() - numbers.keys() <= {"p"}  # of random assignments: compared above
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


@pytest.mark.parametrize("folder", ["", pytest.param("ko/", marks=pytest.mark.long)])
def test_every_lesson_is_on_the_slides(folder: str, site: Path, open_tab: Callable[..., Any]) -> None:
    tab = open_tab((site / folder / "slides.html").as_uri(), viewport={"width": 1280, "height": 720})
    page = tab.page
    page.wait_for_function(f"document.querySelectorAll('[data-ready=true]').length === {len(LESSONS)}")
    assert page.evaluate("document.querySelectorAll('.slide').length") == 1 + 4 * len(LESSONS)
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    box = "Array.from(document.querySelectorAll('.slide'), (e) => Math.abs(Math.round(e.getBoundingClientRect().top)))"
    assert page.evaluate(box).index(min(page.evaluate(box))) == 2
    page.evaluate(Path(AXE_FILE_PATH).read_text(encoding="utf-8"))
    assert page.evaluate(AXE) == []
    assert tab.complaints == []
    page.context.close()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_notebooks_have_the_texts_and_the_code(language: str, tmp_path: Path) -> None:
    paths = write_notebooks(tmp_path, language)
    assert len(paths) == len(LESSONS)
    for path in paths:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        assert "{{" not in path.read_text("utf-8")
        for cell in book.cells:
            if cell.cell_type == "code":
                compile(cell.source, path.name, "exec")


@pytest.mark.parametrize("write", [write_course, write_notebooks])
def test_a_file_in_the_place_of_the_folder_ends_in_one_line(write: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AlexNetError, match=r"the (course|notebooks) cannot be written to .*file"):
        write(tmp_path / "file")


@pytest.mark.long
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_notebooks_run_to_their_end(lesson: Any, tmp_path: Path) -> None:
    book = nbformat.from_dict(notebook(lesson, "en"))
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.outputs for cell in book.cells if cell.cell_type == "code" and "print" in cell.source)


def test_the_command_writes_pages_slides_and_notebooks(command: Callable[..., Any], tmp_path: Path) -> None:
    done = command("learn", "--slides", "--lang", "ko", "--out", tmp_path / "course")
    assert done.returncode == 0
    assert done.stdout.strip() == str(tmp_path / "course" / "ko" / "slides.html")
    assert Path(done.stdout.strip()).is_file()


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_does_not_exist_is_invalid_usage(port: str, command: Callable[..., Any]) -> None:
    done = command("learn", "--no-browser", "--port", port)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"port {port} is not valid" in done.stderr


def test_the_course_is_served_until_it_is_interrupted(site: Path, monkeypatch: Any) -> None:
    found = {}

    def write(folder: Path) -> None:
        found["folder"] = folder
        shutil.copytree(site, folder, dirs_exist_ok=True)

    def opened(address: str) -> None:
        found["address"] = address
        found["server"] = threading.Thread(target=lambda: found.update(page=urllib.request.urlopen(address).read()))
        found["server"].start()

    def serve_one(server: Any) -> None:
        server.handle_request()
        with pytest.raises(AlexNetError, match=r"cannot bind .*`--port 0`"):
            open_course(port=server.server_port, browser=False)
        raise KeyboardInterrupt

    monkeypatch.setattr("alexnet.learn.serving.write_course", write)
    monkeypatch.setattr("webbrowser.open", opened)
    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", serve_one)
    with pytest.raises(KeyboardInterrupt):
        open_course("ko")
    found["server"].join()
    assert found["address"].startswith("http://127.0.0.1:")
    assert found["address"].endswith("/ko/index.html")
    assert found["page"] == (site / "ko" / "index.html").read_bytes()
    assert not found["folder"].exists()


def test_the_site_is_small(site: Path) -> None:
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < 10_000_000
