"""Response normalizations on a CPU: tiles of a tensor, processed by the threads of PyTorch."""

import ctypes

import torch
from torch import Tensor

from alexnet.kernels.code import run
from alexnet.kernels.norm import Norm
from alexnet.kernels.norm_code import Job, KernelShape, compile_kernel

_SERIAL_BELOW = 32_768  # values; as torch does for its own elementwise operations
_TILE = (
    1_024  # values of a tile of whole rows: with its scratch memory and the next tile it fits in the first-level cache
)
_STRIP = 384  # positions of a tile of a contiguous tensor: long enough runs of memory in each feature map
_BLOCK = 32  # channels of a spatial tile of a channels-last tensor: a cache line of bfloat16
_SHARE = 16  # tiles that a thread takes at a time: neighbors, so that the next is prefetched


def forward(x: Tensor, norm: Norm) -> Tensor:
    """Return the normalization of ``x``, (N, C, H, W) float32 or bfloat16 with any strides."""
    return _run(x, None, norm)


def backward(x: Tensor, grad: Tensor, norm: Norm) -> Tensor:
    """Return the gradient with respect to ``x``, given the gradient with respect to the output of `forward`."""
    return _run(x, grad, norm)


def _run(x: Tensor, grad: Tensor | None, norm: Norm) -> Tensor:
    # a tensor with one channel or one position has both formats
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = x.contiguous(memory_format=layout)
    out = torch.empty_like(x, memory_format=layout)
    if x.numel() == 0:
        return out
    shape, job = _tiles(x, channels_last, norm, backward=grad is not None)
    job.k, job.alpha = norm.k, norm.alpha
    job.x, job.out = x.data_ptr(), out.data_ptr()
    if grad is not None:
        grad = grad.to(x.dtype).contiguous(memory_format=layout)
        job.grad = grad.data_ptr()
    threads = 1 if x.numel() < _SERIAL_BELOW else torch.get_num_threads()
    job.share = max(1, min(_SHARE, job.tiles // (4 * threads)))
    kernel = compile_kernel(shape)
    scratch = torch.empty(threads * kernel.scratch_bytes, dtype=torch.uint8)
    job.scratch = scratch.data_ptr()
    run(kernel.address, ctypes.addressof(job), threads)
    return out


def _tiles(x: Tensor, channels_last: bool, norm: Norm, *, backward: bool) -> tuple[KernelShape, Job]:
    """Return the kernel for ``x`` and the layout of its tiles in memory."""
    images, maps, height, width = x.shape
    positions = height * width
    neighbors: tuple[str, ...]
    if norm.across == "space":
        if channels_last:
            block = min(maps, _BLOCK)
            blocks = -(-maps // block)
            rows, length, neighbors = (height, width), block, ("row", "line")
            job = Job(tiles=images * blocks, inner=blocks, outer_stride=maps * positions, line_stride=width * maps)
            job.inner_stride, job.inner_last, job.row_stride = block, maps - block, maps
        else:
            rows, length, neighbors = (1, height), width, ("element", "row")
            job = Job(tiles=images * maps, inner=1, outer_stride=positions, row_stride=width)
    else:
        tower = maps // norm.groups
        if channels_last:
            towers = images * positions * norm.groups
            count = min(towers, max(1, _TILE // tower))
            rows, length, neighbors = (1, count), tower, ("element",)
            tiles = -(-towers // count)
            job = Job(tiles=tiles, inner=tiles, inner_stride=count * tower, row_stride=tower)
            job.inner_last = (towers - count) * tower
        else:
            strips = -(-positions // _STRIP)
            length = min(positions, -(-positions // strips // 16) * 16)
            rows, neighbors = (1, tower), ("row",)
            job = Job(tiles=images * norm.groups * strips, inner=strips, outer_stride=tower * positions)
            job.inner_stride, job.inner_last, job.row_stride = length, positions - length, positions
    bfloat16 = x.dtype == torch.bfloat16
    return KernelShape(backward, norm.relu, bfloat16, norm.size, rows, length, neighbors), job
