"""Response normalization: across channels (paper, section 3.3) and across space (released 2012 code)."""

import functools
import importlib
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet.kernels.norm import Norm
from alexnet.kernels.safe import is_safe_mode
from alexnet.kernels.selection import gpu_kernels
from alexnet.runtime.progress import notify


def local_response_norm(
    x: Tensor,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    *,
    divide_by_n: bool,
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """Local response normalization across channels (paper, section 3.3).

    ``b[i] = a[i] / (k + alpha · Σ a[j]²) ** beta``, the sum over the `size` channels centered on i that exist in the
    same tower. float32 and bfloat16 with beta = 0.75 run as machine code on a CPU and as a Triton kernel on a GPU;
    their gradients can be taken once. Everything else runs as `local_response_norm_reference`.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W), floating point, any memory format.
    size : int
        Channels of a window, odd.
    alpha, beta, k : float
        Constants of the formula.
    divide_by_n : bool
        Whether the factor is ``alpha / size``, the convention of the released 2012 code, Caffe, cuDNN, ONNX and
        `torch.nn.LocalResponseNorm`. The paper's printed formula is ``divide_by_n=False``.
    groups : int
        Number of towers: the channels are split into that many equal parts, and no window crosses from one to the next.
    relu : bool
        Whether a is ``max(x, 0)``, in the same pass over memory.

    Returns
    -------
    Tensor
        Of the shape, dtype and memory format of `x`.

    Raises
    ------
    ValueError
        If `size` is even or not positive, `groups` do not divide C, or `x` is not 4-D floating point.
    """
    _check(x, size)
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups must divide the number of channels: {x.shape[1]} channels in {groups} groups")
    kernels = _kernels(x, alpha, beta, k)
    if kernels is None:
        a = F.relu(x) if relu else x
        return local_response_norm_reference(a, size, alpha, beta, k, divide_by_n=divide_by_n, groups=groups)
    norm = Norm("maps", size, alpha / size if divide_by_n else alpha, k, groups, relu)
    return _ResponseNorm.apply(x, norm, kernels)


def spatial_response_norm(x: Tensor, size: int = 5, alpha: float = 0.001, beta: float = 0.75) -> Tensor:
    """Response normalization over the neighborhood in the same channel (released 2012 code).

    ``b[y, x] = a[y, x] / (1 + alpha / size² · Σ a²) ** beta``, the sum over the `size` × `size` positions centered on
    (y, x). Positions outside the feature map count as zero, and the divisor is ``size²`` there too. float32 and
    bfloat16 with beta = 0.75 run as machine code, as in `local_response_norm`.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W), floating point, any memory format.
    size : int
        Height and width of a neighborhood, odd.
    alpha, beta : float
        Constants of the formula.

    Returns
    -------
    Tensor
        Of the shape, dtype and memory format of `x`.

    Raises
    ------
    ValueError
        If `size` is even or not positive, or `x` is not 4-D floating point.
    """
    _check(x, size)
    kernels = _kernels(x, alpha, beta, 1.0)
    if kernels is None:
        return spatial_response_norm_reference(x, size, alpha, beta)
    return _ResponseNorm.apply(x, Norm("space", size, alpha / size**2, 1.0), kernels)


def local_response_norm_reference(
    x: Tensor,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    *,
    divide_by_n: bool,
    groups: int = 1,
) -> Tensor:
    """`local_response_norm` in plain PyTorch operations, differentiable to any order, on any device and dtype.

    float16 and bfloat16 are computed in float32 and rounded once, at the end.
    """
    towers = _at_least_float32(x).unflatten(1, (groups, x.shape[1] // groups))
    channels = towers.shape[2]
    squares = F.pad(towers * towers, (0, 0, 0, 0, size // 2, size // 2))
    energy = squares.narrow(2, 0, channels)
    for offset in range(1, size):
        energy = energy + squares.narrow(2, offset, channels)
    scale = k + (alpha / size if divide_by_n else alpha) * energy
    return (towers * scale.pow(-beta)).flatten(1, 2).to(x.dtype)


def spatial_response_norm_reference(x: Tensor, size: int = 5, alpha: float = 0.001, beta: float = 0.75) -> Tensor:
    """`spatial_response_norm` in plain PyTorch operations, differentiable to any order, on any device and dtype.

    float16 and bfloat16 are computed in float32 and rounded once, at the end.
    """
    wide = _at_least_float32(x)
    height, width = x.shape[2:]
    squares = F.pad(wide * wide, (size // 2,) * 4)
    rows = squares.narrow(2, 0, height)
    for offset in range(1, size):
        rows = rows + squares.narrow(2, offset, height)
    energy = rows.narrow(3, 0, width)
    for offset in range(1, size):
        energy = energy + rows.narrow(3, offset, width)
    return (wide * (1 + alpha / size**2 * energy).pow(-beta)).to(x.dtype)


class _ResponseNorm(torch.autograd.Function):
    """Autograd of the kernels. Saves only the input: the sums are faster to compute again than to write and read."""

    @staticmethod
    def forward(ctx, x: Tensor, norm: Norm, kernels: ModuleType) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.norm, ctx.kernels = norm, kernels
        ctx.save_for_backward(x)
        return kernels.forward(x, norm)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return ctx.kernels.backward(x, grad, ctx.norm), None, None


def _kernels(x: Tensor, alpha: float, beta: float, k: float) -> ModuleType | None:
    """The module with the kernels for `x`; None where the reference must run."""
    supported = x.dtype in (torch.float32, torch.bfloat16) and beta == 0.75 and alpha >= 0 and k >= 1e-30
    # Compilers, exporters and torch.func must see single operations; a tensor subclass may have no memory.
    seen_through = (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch.onnx.is_in_onnx_export()
        or torch._C._are_functorch_transforms_active()
        or type(x) not in (Tensor, torch.nn.Parameter)
    )
    return _kernels_of(x) if supported and not seen_through else None


def _kernels_of(x: Tensor) -> ModuleType | None:
    if is_safe_mode():
        return None
    if x.device.type == "cpu":
        return _cpu_kernels()
    return gpu_kernels("gpu_norm", x)


@functools.cache
def _cpu_kernels() -> ModuleType | None:
    try:
        return importlib.import_module("alexnet.kernels.cpu_norm")
    except (ImportError, OSError) as error:
        notify(f"response normalization is many times slower: its machine code does not load ({error})")
        return None


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _check(x: Tensor, size: int) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be (N, C, H, W) floating point, not {tuple(x.shape)} {x.dtype}")
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and positive, so that the window has a center, not {size}")
