"""Crops of images: flipped, minus the mean, scaled, as floating point, in Triton."""

# mypy: allow-untyped-defs
# (a type checker does not know the language of `triton.jit`)

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels.gpu_norm import element_indices

_BLOCK = 1_024  # values per program


def cut(images: Tensor, mean: Tensor, where: Tensor, numbers: Tensor, out: Tensor, turn_mean: bool) -> None:
    """Fill `out` with crops of contiguous tensors on one GPU; see `alexnet.kernels.crops.cut`.

    where: (N, 7) int64, place in the image, place in the mean, flips. numbers: (N, 4) float32, gain and shift.
    """
    if out.numel() == 0:
        return
    with torch.cuda.device_of(out):  # Triton launches on the current device
        _cut_kernel[(triton.cdiv(out.numel(), _BLOCK),)](
            *(images, mean, where.int(), numbers, out),
            *(out.numel(), images.shape[1], out.shape[1]),
            turn_mean=turn_mean,
            block=_BLOCK,
            wide=max(out.numel(), images.numel()) > 2**31 - _BLOCK,
        )


def verify(device: torch.device) -> None:
    """Compare the kernel with the plain form on `device`; raise an error if they differ."""
    from alexnet.kernels import plain

    generator, size, crop_size = torch.Generator().manual_seed(0), 23, 17
    images = torch.randint(256, (8, size, size, 3), generator=generator).to(torch.uint8)
    mean = 255 * torch.rand(size, size, 3, generator=generator)
    places = torch.randint(size - crop_size + 1, (8, 2), generator=generator)
    flips = torch.tensor([[number & 1, number & 2, number & 4] for number in range(8)]).bool()
    gain, shift = torch.rand(8, generator=generator), torch.randn(8, 3, generator=generator)
    for turn_mean in (True, False):
        mean_places = places if turn_mean else torch.full_like(places, (size - crop_size) // 2)
        expected = plain.crop(images, mean, places, mean_places, flips, gain, shift, crop_size, turn_mean)
        where = torch.cat([places, mean_places, flips.long()], 1)
        numbers = torch.cat([gain[:, None], shift], 1)
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 2**-7)):
            out = torch.empty(8, crop_size, crop_size, 3, dtype=dtype, device=device)
            cut(images.to(device), mean.to(device), where.to(device), numbers.to(device), out, turn_mean)
            torch.testing.assert_close(out.cpu().float(), expected, rtol=tolerance, atol=tolerance * 64)


@triton.jit
def _cut_kernel(
    image_pointer,
    mean_pointer,
    where_pointer,
    number_pointer,
    out_pointer,
    count,
    size,
    crop_size,
    turn_mean: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    index = element_indices(block, wide)
    inside = index < count
    color, pixel = index % 3, index // 3
    column, row, image = pixel % crop_size, pixel // crop_size % crop_size, pixel // crop_size // crop_size
    where = where_pointer + image * 7
    top, left = tl.load(where, mask=inside, other=0), tl.load(where + 1, mask=inside, other=0)
    across, down = tl.load(where + 4, mask=inside, other=0), tl.load(where + 5, mask=inside, other=0)
    transposed = tl.load(where + 6, mask=inside, other=0) != 0
    source_row = tl.where(transposed, column, row)
    source_column = tl.where(transposed, row, column)
    source_row = top + tl.where(down != 0, crop_size - 1 - source_row, source_row)
    source_column = left + tl.where(across != 0, crop_size - 1 - source_column, source_column)
    source = (image * size + source_row) * size + source_column
    if turn_mean:
        expected = source_row * size + source_column
    else:
        mean_top = tl.load(where + 2, mask=inside, other=0)
        mean_left = tl.load(where + 3, mask=inside, other=0)
        expected = (mean_top + row) * size + mean_left + column
    value = tl.load(image_pointer + source * 3 + color, mask=inside, other=0).to(tl.float32)
    value -= tl.load(mean_pointer + expected * 3 + color, mask=inside, other=0.0)
    gain = tl.load(number_pointer + image * 4, mask=inside, other=0.0)
    shift = tl.load(number_pointer + image * 4 + 1 + color, mask=inside, other=0.0)
    tl.store(out_pointer + index, (value * gain + shift).to(out_pointer.dtype.element_ty), mask=inside)
