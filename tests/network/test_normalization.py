"""The response normalizations against the printed formulas, written out in float64."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alexnet.kernels import cpu_norm, norm_code
from alexnet.kernels.norm import Norm
from alexnet.network.normalization import (
    local_response_norm,
    local_response_norm_reference,
    spatial_response_norm,
    spatial_response_norm_reference,
)

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
ALPHA = 0.05  # large, so that the sums matter beside k


def channel_window(i: int, size: int, tower: int) -> slice:
    first = i // tower * tower
    return slice(max(first, i - size // 2), min(first + tower, i + size // 2 + 1))


def local_formula(
    a: np.ndarray, grad: np.ndarray, size: int, alpha: float, k: float, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """b = a · s^-β and its gradient, one channel at a time: s = k + α Σ a², da = g s^-β − 2αβ a Σ g a s^-(β+1)."""
    windows = [channel_window(i, size, a.shape[1] // groups) for i in range(a.shape[1])]
    s = np.stack([k + alpha * (a[:, window] ** 2).sum(axis=1) for window in windows], axis=1)
    cross = grad * a * s**-1.75
    sums = np.stack([cross[:, window].sum(axis=1) for window in windows], axis=1)
    return a * s**-0.75, grad * s**-0.75 - 1.5 * alpha * a * sums


def box(values: np.ndarray, size: int) -> np.ndarray:
    """The sums over size × size neighborhoods, from the integral image of each channel."""
    half = size // 2
    integral = np.pad(values, ((0, 0), (0, 0), (half + 1, half), (half + 1, half))).cumsum(axis=2).cumsum(axis=3)
    rows = integral[:, :, size:] - integral[:, :, :-size]
    return rows[..., size:] - rows[..., :-size]


def spatial_formula(a: np.ndarray, grad: np.ndarray, size: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    factor = alpha / size**2
    s = 1 + factor * box(a**2, size)
    return a * s**-0.75, grad * s**-0.75 - 1.5 * factor * a * box(grad * a * s**-1.75, size)


def example(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, grad = (torch.randn(shape, generator=generator) for _ in range(2))
    return tuple(t.to(dtype).contiguous(memory_format=LAYOUTS[layout]) for t in (3 * x, grad))  # type: ignore[return-value]


def run(function, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = function(x)
    y.backward(grad)
    assert x.grad is not None
    return y.detach(), x.grad


def assert_rounded(found: Tensor, true: np.ndarray) -> None:
    """`found` is `true`, rounded to its dtype; where terms of a gradient cancel, to a small part of the largest."""
    relative, absolute = {
        torch.float64: (1e-12, 2e-6),
        torch.float32: (2e-6, 2e-6),
        torch.bfloat16: (2**-8 * 1.01, 2**-16),  # roots there are good to a thousandth of the dtype's spacing
    }[found.dtype]
    error = np.abs(found.double().numpy() - true)
    assert (error <= relative * np.abs(true) + absolute * np.abs(true).max(initial=0)).all(), error.max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("divide_by_n", [True, False])
def test_local_response_norm_is_the_printed_formula(layout, dtype, groups, divide_by_n):
    x, grad = example((3, 96, 14, 11), dtype, layout)
    y, gradient = run(lambda a: local_response_norm(a, alpha=ALPHA, divide_by_n=divide_by_n, groups=groups), x, grad)
    alpha = ALPHA / 5 if divide_by_n else ALPHA
    true, true_gradient = local_formula(x.double().numpy(), grad.double().numpy(), 5, alpha, 2.0, groups)
    assert_rounded(y, true)
    assert_rounded(gradient, true_gradient)
    for result in (y, gradient):
        assert result.dtype == dtype
        assert result.is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [3, 5])
def test_spatial_response_norm_is_the_printed_formula(layout, dtype, size):
    x, grad = example((2, 40, 13, 9), dtype, layout)
    y, gradient = run(lambda a: spatial_response_norm(a, size, 0.5), x, grad)
    true, true_gradient = spatial_formula(x.double().numpy(), grad.double().numpy(), size, 0.5)
    assert_rounded(y, true)
    assert_rounded(gradient, true_gradient)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9)),
    groups=st.integers(1, 3),
    size=st.sampled_from([1, 3, 5, 9]),
    layout=st.sampled_from(list(LAYOUTS)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_every_shape_is_the_printed_formula(shape, groups, size, layout, dtype):
    images, maps, height, width = shape
    x, grad = example((images, maps * groups, height, width), dtype, layout)
    found = run(lambda a: local_response_norm(a, size, ALPHA, divide_by_n=False, groups=groups), x, grad)
    a, g = x.double().numpy(), grad.double().numpy()
    for result, true in zip(found, local_formula(a, g, size, ALPHA, 2.0, groups), strict=True):
        assert_rounded(result, true)
    found = run(lambda a: spatial_response_norm(a, size, ALPHA), x, grad)
    for result, true in zip(found, spatial_formula(a, g, size, ALPHA), strict=True):
        assert_rounded(result, true)


@pytest.mark.parametrize("shape", [(2, 96, 55, 55), (2, 256, 27, 27)])
def test_the_divided_convention_agrees_with_torch(shape):
    x, grad = example(shape, torch.float32, "channels-last")
    ours = run(lambda a: local_response_norm(a, alpha=1e-2, divide_by_n=True), x, grad)
    theirs = run(lambda a: F.local_response_norm(a, 5, 1e-2, 0.75, 2.0), x, grad)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=3e-6, atol=3e-6)


def test_towers_are_normalized_separately():
    x, _ = example((2, 10, 4, 4), torch.float32, "contiguous")
    halves = [local_response_norm(half, divide_by_n=False) for half in x.chunk(2, dim=1)]
    torch.testing.assert_close(local_response_norm(x, divide_by_n=False, groups=2), torch.cat(halves, dim=1))


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_in_float64_pass_gradcheck(groups):
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    for relu in (False, True):
        assert torch.autograd.gradcheck(
            lambda a, relu=relu: local_response_norm(a, alpha=0.3, divide_by_n=True, groups=groups, relu=relu), x
        )
    assert torch.autograd.gradcheck(lambda a: spatial_response_norm(a, 3, 0.3), x)


def test_other_powers_are_computed_by_the_reference():
    x, _ = example((2, 8, 3, 3), torch.float32, "contiguous")
    expected = F.local_response_norm(x, 3, 0.3, 0.5, 1.0)
    torch.testing.assert_close(local_response_norm(x, 3, 0.3, 0.5, 1.0, divide_by_n=True), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_relu_equals_relu_before(layout, dtype):
    x, grad = example((2, 48, 7, 9), dtype, layout)
    inside = run(lambda a: local_response_norm(a, alpha=ALPHA, divide_by_n=False, relu=True), x, grad)
    before = run(lambda a: local_response_norm(a.relu(), alpha=ALPHA, divide_by_n=False), x, grad)
    for found, expected in zip(inside, before, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_inf_are_propagated(relu, dtype):
    x, _ = example((1, 8, 4, 4), dtype, "channels-last")
    x[0, 4, 2, 2] = float("nan")
    y = local_response_norm(x, divide_by_n=True, relu=relu)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[0, 2:7, 2, 2] = True
    assert torch.equal(y.isnan(), expected)
    y = spatial_response_norm(x, 3)
    assert y.isnan().sum() == 9


def test_very_large_and_very_small_values():
    x = torch.tensor([1e-30, 1.0, 1e6, 1e12, 1e17]).reshape(1, 5, 1, 1)
    for k in (1e-6, 2.0, 1e6):
        true, _ = local_formula(x.double().numpy(), np.ones(x.shape), 3, 1e-4, k, 1)
        found = local_response_norm(x, 3, 1e-4, k=k, divide_by_n=False)
        np.testing.assert_allclose(found.double().numpy(), true, rtol=2e-6)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, ::2],
        lambda x: x.transpose(2, 3),
        lambda x: x[:, :, 1:-1, 1:-1],
        lambda x: x[:, :1].expand(-1, 12, -1, -1),
        lambda x: x.contiguous(memory_format=torch.channels_last)[:, 3:9],
    ],
    ids=["every other map", "transposed", "cropped", "expanded", "some channels of channels-last"],
)
def test_any_strides(view):
    x, _ = example((2, 12, 8, 6), torch.float32, "contiguous")
    a = view(x)
    grad = torch.ones(()).expand(a.shape)
    found = run(lambda a: local_response_norm(a, alpha=ALPHA, divide_by_n=False), a, grad)
    true = local_formula(a.double().numpy(), grad.double().numpy(), 5, ALPHA, 2.0, 1)
    for result, expected in zip(found, true, strict=True):
        assert_rounded(result, expected)
    found = run(lambda a: spatial_response_norm(a, alpha=ALPHA), a, grad)
    true = spatial_formula(a.double().numpy(), grad.double().numpy(), 5, ALPHA)
    for result, expected in zip(found, true, strict=True):
        assert_rounded(result, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 8, 5, 5), (2, 8, 0, 5)])
def test_no_images_and_no_positions_give_none(shape, layout):
    x, grad = example(shape, torch.float32, layout)
    for function in (lambda a: local_response_norm(a, divide_by_n=True), spatial_response_norm):
        y, gradient = run(function, x, grad)
        assert y.shape == gradient.shape == shape


@pytest.mark.parametrize("size", [0, 2, 4, -3])
def test_a_window_without_a_center_is_refused(size):
    x = torch.zeros(1, 8, 4, 4)
    for call in (lambda: local_response_norm(x, size, divide_by_n=True), lambda: spatial_response_norm(x, size)):
        with pytest.raises(ValueError, match=f"size must be odd and positive.*{size}"):
            call()


def test_towers_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="10 channels in 3 groups"):
        local_response_norm(torch.zeros(1, 10, 4, 4), divide_by_n=True, groups=3)


@pytest.mark.parametrize("x", [torch.zeros(8, 4, 4), torch.zeros(1, 8, 4, 4, dtype=torch.int32)])
def test_an_input_that_is_not_a_batch_of_feature_maps_is_refused(x):
    with pytest.raises(ValueError, match=r"\(N, C, H, W\) floating point"):
        local_response_norm(x, divide_by_n=True)


def test_under_autocast_bfloat16_stays_bfloat16():
    x, grad = example((2, 16, 6, 6), torch.bfloat16, "channels-last")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, gradient = run(lambda a: spatial_response_norm(local_response_norm(a, divide_by_n=True)), x, grad)
    assert y.dtype == gradient.dtype == torch.bfloat16


def test_without_gradients():
    x, _ = example((2, 16, 6, 6), torch.float32, "channels-last")
    x.requires_grad_()
    with torch.no_grad():
        y = local_response_norm(x, divide_by_n=True)
    assert not y.requires_grad
    torch.testing.assert_close(y, local_response_norm_reference(x.detach(), divide_by_n=True))


def test_only_the_input_is_kept_for_the_backward():
    x = torch.randn(2, 96, 9, 9, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        local_response_norm(x, divide_by_n=True, relu=True)
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]


@pytest.mark.skipif("sse" not in norm_code.host().features, reason="the host has no x86-64 CPU")
@pytest.mark.parametrize("name", ["x86-64", "x86-64-v2", "x86-64-v3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [Norm("maps", 5, ALPHA, 2.0), Norm("space", 5, ALPHA / 25, 1.0)])
def test_code_for_older_cpus(name, dtype, norm, monkeypatch):
    """None of these converts bfloat16; the first two have no fused multiply-add and shorter registers."""
    if name == "x86-64-v3" and "avx2" not in norm_code.host().features:
        pytest.skip("the host cannot run it")
    monkeypatch.setattr(norm_code, "host", lambda: norm_code.Cpu(name, frozenset(), ""))
    x, grad = example((2, 20, 7, 5), dtype, "channels-last")
    a, g = x.double().numpy(), grad.double().numpy()
    formula = local_formula(a, g, 5, ALPHA, 2.0, 1) if norm.across == "maps" else spatial_formula(a, g, 5, ALPHA)
    assert_rounded(cpu_norm.forward(x, norm), formula[0])
    assert_rounded(cpu_norm.backward(x, grad, norm), formula[1])


def test_python_threads_may_call_at_the_same_time():
    x, grad = example((8, 96, 27, 27), torch.float32, "channels-last")
    expected = run(lambda a: local_response_norm(a, divide_by_n=True), x, grad)
    found: list[tuple[Tensor, Tensor]] = []

    def work() -> None:
        for _ in range(5):
            found.append(run(lambda a: local_response_norm(a, divide_by_n=True), x, grad))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    for y, gradient in found:
        assert torch.equal(y, expected[0])
        assert torch.equal(gradient, expected[1])


def test_the_number_of_threads_does_not_change_the_result():
    x, grad = example((4, 96, 27, 27), torch.bfloat16, "channels-last")
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(lambda a: local_response_norm(a, divide_by_n=True), x, grad))
    finally:
        torch.set_num_threads(before)
    for y, gradient in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(gradient, results[0][1])


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork processes")
def test_a_forked_process_computes_the_same():
    """OpenMP's threads do not survive a fork: a child that waited for them would hang."""
    done = python(
        """
import os, signal, torch, numpy as np
from alexnet.network.normalization import local_response_norm
torch.set_num_threads(2)
x = torch.randn(8, 96, 27, 27)
expected = local_response_norm(x, divide_by_n=True)
child = os.fork()
if child == 0:
    signal.alarm(120)
    found = local_response_norm(x, divide_by_n=True)
    os._exit(0 if np.array_equal(found.numpy(), expected.numpy()) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert done.returncode == 0, done.stderr


def test_without_the_compiler_the_reference_runs_with_one_message():
    done = python(
        """
import sys
sys.modules["llvmlite"] = None
import torch
from alexnet.network.normalization import local_response_norm, local_response_norm_reference
x = torch.randn(2, 8, 5, 5)
y = local_response_norm(x, divide_by_n=True)
local_response_norm(x, divide_by_n=True)
assert torch.equal(y, local_response_norm_reference(x, divide_by_n=True))
"""
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("response normalization is many times slower: its machine code does not load (")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tracers_and_transforms_see_single_operations():
    x, _ = example((2, 8, 5, 5), torch.float32, "contiguous")
    expected = local_response_norm(x, divide_by_n=True)

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return local_response_norm(x, divide_by_n=True)

    other = torch.randn(2, 8, 5, 5)
    traced = torch.jit.trace(Layer(), x)
    torch.testing.assert_close(traced(other), local_response_norm(other, divide_by_n=True))
    exported = torch.export.export(Layer(), (x,)).module()
    torch.testing.assert_close(exported(other), local_response_norm(other, divide_by_n=True))
    torch.testing.assert_close(torch.func.vmap(Layer())(x[:, None])[:, 0], expected)
    assert local_response_norm(x.to("meta"), divide_by_n=True).shape == x.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_the_result_is_that_of_a_cpu():
    x, grad = example((4, 96, 27, 27), torch.bfloat16, "channels-last")
    for function in (lambda a: local_response_norm(a, divide_by_n=True, groups=2, relu=True), spatial_response_norm):
        expected = run(function, x, grad)
        found = run(function, x.cuda(), grad.cuda())
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=2**-7, atol=1e-6)


def test_references_can_be_differentiated_twice():
    x = torch.randn(1, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a: local_response_norm_reference(a, 3, 0.3, divide_by_n=True), x)
    assert torch.autograd.gradgradcheck(lambda a: spatial_response_norm_reference(a, 3, 0.3), x)
