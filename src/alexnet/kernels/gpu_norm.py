"""Response normalizations in Triton: channels-last and contiguous, float32 and bfloat16.

A program computes consecutive values in memory and reads their neighbors from the caches again: from the first level in
the channels-last format, where neighboring feature maps are neighbors in memory.
"""

# mypy: allow-untyped-defs, disable-error-code="assignment,var-annotated"
# (a type checker does not know the language of `triton.jit`)

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels.norm import Norm

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 3):
    raise ImportError(f"Triton {triton.__version__} cannot compile these kernels; 3.3 or newer can")

_BLOCK = 1_024  # values per program


def forward(x: Tensor, norm: Norm) -> Tensor:
    """Return the normalization of ``x``, (N, C, H, W) float32 or bfloat16 with any strides."""
    return _run(x, None, norm)


def backward(x: Tensor, grad: Tensor, norm: Norm) -> Tensor:
    """Return the gradient with respect to ``x``, given the gradient with respect to the output of `forward`."""
    return _run(x, grad, norm)


def _run(x: Tensor, grad: Tensor | None, norm: Norm) -> Tensor:
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = x.contiguous(memory_format=layout)
    out = torch.empty_like(x, memory_format=layout)
    if grad is not None:
        grad = grad.to(x.dtype).contiguous(memory_format=layout)
    if x.numel() > 0:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            (_across_maps if norm.across == "maps" else _across_space)(x, grad, out, channels_last, norm)
    return out


def _launch(x: Tensor, norm: Norm) -> tuple[tuple[int], dict[str, int]]:
    """Return the grid and the compile-time parameters."""
    wide = x.numel() > 2**31 - _BLOCK  # 64-bit indices; their divisions are several times slower
    return (triton.cdiv(x.numel(), _BLOCK),), {
        "half": norm.size // 2,
        "relu": norm.relu,
        "block": _BLOCK,
        "wide": wide,
    }


def _across_maps(x: Tensor, grad: Tensor | None, out: Tensor, channels_last: bool, norm: Norm) -> None:
    step = 1 if channels_last else x.shape[2] * x.shape[3]
    grid, fixed = _launch(x, norm)
    fixed["tower"] = x.shape[1] // norm.groups
    if grad is None:
        _maps_forward_kernel[grid](x, out, norm.alpha, norm.k, x.numel(), step, **fixed)
    else:
        _maps_backward_kernel[grid](x, grad, out, norm.alpha, norm.k, x.numel(), step, **fixed)


def _across_space(x: Tensor, grad: Tensor | None, out: Tensor, channels_last: bool, norm: Norm) -> None:
    _, maps, height, width = x.shape
    grid, fixed = _launch(x, norm)
    numbers = (norm.alpha, norm.k, x.numel(), height, width, maps if channels_last else 1)
    if grad is None:
        _space_forward_kernel[grid](x, out, *numbers, **fixed)
    else:
        cross = torch.empty_like(x, dtype=torch.float32)
        _space_cross_kernel[grid](x, grad, cross, *numbers, **fixed)
        _space_backward_kernel[grid](x, grad, cross, out, *numbers, **fixed)


def verify(device: torch.device) -> None:
    """Compare the kernels with the plain forms on `device`; raise an error if they differ."""
    from alexnet.kernels import plain

    generator = torch.Generator().manual_seed(0)
    for norm in (Norm("maps", 5, 0.3, 2.0, 2), Norm("maps", 3, 0.1, 1.0, 1, True), Norm("space", 3, 0.1, 1.0)):
        for layout in (torch.channels_last, torch.contiguous_format):
            for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 2**-6)):
                x, grad = (torch.randn(2, 6, 5, 4, generator=generator).to(dtype) for _ in range(2))
                reference = x.double().requires_grad_()
                expected = plain.response_norm(reference, norm)
                expected.backward(grad.double())
                assert reference.grad is not None
                x, grad = (tensor.to(device).contiguous(memory_format=layout) for tensor in (x, grad))
                for result, wanted in ((forward(x, norm), expected), (backward(x, grad, norm), reference.grad)):
                    torch.testing.assert_close(result.cpu().double(), wanted.detach(), rtol=tolerance, atol=tolerance)


@triton.jit
def element_indices(block: tl.constexpr, wide: tl.constexpr):
    program = tl.program_id(0).to(tl.int64) if wide else tl.program_id(0)
    return program * block + tl.arange(0, block)


@triton.jit
def _rectified(x, relu: tl.constexpr):
    return tl.where(x < 0, 0.0, x) if relu else x  # not a number stays not a number


@triton.jit
def _power(s):
    """``s ** -0.75``."""
    root = tl.rsqrt(s)
    return root * tl.sqrt(root)


@triton.jit
def _map_at(pointer, index, inside, channel, distance: tl.constexpr, step, tower: tl.constexpr):
    """The values ``distance`` maps on, zero beyond the tower."""
    there = inside & (channel + distance >= 0) & (channel + distance < tower)
    return tl.load(pointer + index + distance * step, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _maps_forward_kernel(
    x_pointer,
    out_pointer,
    alpha,
    k,
    count,
    step,
    tower: tl.constexpr,
    half: tl.constexpr,
    relu: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    index = element_indices(block, wide)
    inside, channel = index < count, index // step % tower
    energy = tl.zeros((block,), tl.float32)
    for distance in tl.static_range(-half, half + 1):
        neighbor = _rectified(_map_at(x_pointer, index, inside, channel, distance, step, tower), relu)
        energy += neighbor * neighbor
    x = _rectified(tl.load(x_pointer + index, mask=inside, other=0.0).to(tl.float32), relu)
    tl.store(out_pointer + index, (x * _power(k + alpha * energy)).to(out_pointer.dtype.element_ty), mask=inside)


@triton.jit
def _maps_backward_kernel(
    x_pointer,
    grad_pointer,
    out_pointer,
    alpha,
    k,
    count,
    step,
    tower: tl.constexpr,
    half: tl.constexpr,
    relu: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    index = element_indices(block, wide)
    inside, channel = index < count, index // step % tower
    # the gradient of a channel needs the sums of its neighbors, which need theirs: twice the range, read once
    xs = ()
    for distance in tl.static_range(-2 * half, 2 * half + 1):
        xs = xs + (_rectified(_map_at(x_pointer, index, inside, channel, distance, step, tower), relu),)  # noqa: RUF005
    crosses = tl.zeros((block,), tl.float32)
    direct = tl.zeros((block,), tl.float32)
    for distance in tl.static_range(-half, half + 1):
        energy = tl.zeros((block,), tl.float32)
        for further in tl.static_range(-half, half + 1):
            energy += xs[2 * half + distance + further] * xs[2 * half + distance + further]
        s = k + alpha * energy
        scaled = _map_at(grad_pointer, index, inside, channel, distance, step, tower) * _power(s)
        crosses += scaled * xs[2 * half + distance] / s
        if distance == 0:
            direct = scaled
    x = xs[2 * half]
    out = direct - 1.5 * alpha * x * crosses
    if relu:
        out = tl.where(x <= 0, 0.0, out)
    tl.store(out_pointer + index, out.to(out_pointer.dtype.element_ty), mask=inside)


@triton.jit
def _sum_over_space(
    pointer, index, inside, height, width, step, squares: tl.constexpr, half: tl.constexpr, relu: tl.constexpr
):
    row, column = index // step // width % height, index // step % width
    total = tl.zeros(index.shape, tl.float32)
    for down in tl.static_range(-half, half + 1):
        for right in tl.static_range(-half, half + 1):
            there = inside & (row + down >= 0) & (row + down < height)
            there = there & (column + right >= 0) & (column + right < width)
            value = tl.load(pointer + index + (down * width + right) * step, mask=there, other=0.0).to(tl.float32)
            if squares:
                value = _rectified(value, relu)
                value *= value
            total += value
    return total


@triton.jit
def _space_scale(
    x_pointer,
    alpha,
    k,
    count,
    height,
    width,
    step,
    half: tl.constexpr,
    relu: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    index = element_indices(block, wide)
    inside = index < count
    x = _rectified(tl.load(x_pointer + index, mask=inside, other=0.0).to(tl.float32), relu)
    s = k + alpha * _sum_over_space(x_pointer, index, inside, height, width, step, True, half, relu)
    return index, inside, x, s


@triton.jit
def _space_forward_kernel(
    x_pointer,
    out_pointer,
    alpha,
    k,
    count,
    height,
    width,
    step,
    half: tl.constexpr,
    relu: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    index, inside, x, s = _space_scale(x_pointer, alpha, k, count, height, width, step, half, relu, block, wide)
    tl.store(out_pointer + index, (x * _power(s)).to(out_pointer.dtype.element_ty), mask=inside)


@triton.jit
def _space_cross_kernel(
    x_pointer,
    grad_pointer,
    cross_pointer,
    alpha,
    k,
    count,
    height,
    width,
    step,
    half: tl.constexpr,
    relu: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    index, inside, x, s = _space_scale(x_pointer, alpha, k, count, height, width, step, half, relu, block, wide)
    grad = tl.load(grad_pointer + index, mask=inside, other=0.0).to(tl.float32)
    tl.store(cross_pointer + index, grad * _power(s) * x / s, mask=inside)


@triton.jit
def _space_backward_kernel(
    x_pointer,
    grad_pointer,
    cross_pointer,
    out_pointer,
    alpha,
    k,
    count,
    height,
    width,
    step,
    half: tl.constexpr,
    relu: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    index, inside, x, s = _space_scale(x_pointer, alpha, k, count, height, width, step, half, relu, block, wide)
    grad = tl.load(grad_pointer + index, mask=inside, other=0.0).to(tl.float32)
    crosses = _sum_over_space(cross_pointer, index, inside, height, width, step, False, half, relu)
    out = grad * _power(s) - 1.5 * alpha * x * crosses
    if relu:
        out = tl.where(x <= 0, 0.0, out)
    tl.store(out_pointer + index, out.to(out_pointer.dtype.element_ty), mask=inside)
