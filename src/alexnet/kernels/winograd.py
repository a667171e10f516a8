"""Convolutions by fewer products (Winograd 1980; Lavin and Gray, arXiv 1509.09308), on a CPU, for inference.

A tile of m×m outputs of a convolution with r×r weights is a product of polynomials. Its values at m + r - 1 points in
each direction determine it, and each value is one product of input and weights: (m + r - 1)² instead of m²r². With six
points 3×3 weights need 36 products for 16 outputs instead of 144, and 5×5 weights 36 for 4 instead of 100.

Input and weights are transformed to their values at the points; of all channels at one point they are a matrix product
of tiles × channels with channels × kernels; and the 36 products are transformed back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor, nn

from alexnet.kernels.code import (
    BYTE,
    FLOAT,
    LONG,
    ByteAddress,
    Count,
    ParallelArguments,
    ParallelCode,
    compiled_once,
    host,
)
from alexnet.kernels.safe import is_safe_mode

POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))
"""The points besides infinity. Small ones, each with its reciprocal or negative, keep the rounding errors small."""
SIDE = len(POINTS) + 1
"""Height and width of a tile of the input."""
_LANES = 16
_UNROLLED = 4
_PANEL = 32  # a multiple of the columns that are computed together on any CPU
_GROUP_CHANNELS = 64  # matrix products with fewer are bound by memory
_BYTES = 2**25  # of the tiles of a part of a batch


def can_transform(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether `WinogradConv` computes this convolution of these float32 feature maps, and faster than oneDNN.

    The weights of 3×3 become four times as large, and for one image reading them takes longer than the products.
    """
    size, padding = conv.kernel_size[0], conv.padding[0]
    if (conv.kernel_size, conv.stride, conv.dilation) not in _FORMS:
        return False
    rows, columns = (side + 2 * int(padding) - size + 1 for side in x.shape[2:])
    covered = _tiles_along(rows, size) * _tiles_along(columns, size) * SIDE**2
    return (
        not is_safe_mode()
        and x.dtype == conv.weight.dtype == torch.float32
        and x.device.type == "cpu"
        and (conv.padding_mode, conv.padding) == ("zeros", (padding, padding))
        and (len(x) > 1 or size == 5)
        and conv.in_channels // conv.groups >= _GROUP_CHANNELS
        and conv.in_channels % _LANES == conv.out_channels % (_PANEL * conv.groups) == 0
        and min(rows, columns) >= 1
        and 2 * covered < size**2 * rows * columns
    )


_FORMS = tuple(((size, size), (1, 1), (1, 1)) for size in (3, 5))


def _tiles_along(outputs: int, size: int) -> int:
    return -(-outputs // (SIDE + 1 - size))


@functools.cache
def transforms(size: int) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    """The matrices of the input (SIDE, SIDE), weights (SIDE, size) and output (SIDE + 1 - size, SIDE).

    For vectors d, g: ``output @ ((weights @ g) * (input @ d))`` is the correlation of d with g.
    """
    outputs = SIDE + 1 - size
    powers = [[point**power for power in range(SIDE)] for point in POINTS]
    # The row of a point has the coefficients of the product of (x - other point); that of infinity, of all points.
    rows = [[*_polynomial([other for other in POINTS if other != point]), Fraction(0)] for point in POINTS]
    rows.append(_polynomial(POINTS))
    scales = [1 / math.prod(point - other for other in POINTS if other != point) for point in POINTS]
    weights = [[scale * value for value in row[:size]] for scale, row in zip(scales, powers, strict=True)]
    weights.append([Fraction(column == size - 1) for column in range(size)])
    back = [[*(row[power] for row in powers), Fraction(power == outputs - 1)] for power in range(outputs)]
    inputs, kernels, results = ([[float(value) for value in row] for row in matrix] for matrix in (rows, weights, back))
    return inputs, kernels, results


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), from that of x⁰."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


class _Arguments(ParallelArguments):
    """The tensors of a transform."""

    _fields_ = (
        ("maps", ByteAddress),  # (images, height, width, channels)
        ("tiles", ByteAddress),  # (SIDE², images · down · across, channels)
        ("extra", ByteAddress),  # zeros, or the biases
        *((name, Count) for name in ("height", "width", "down", "across", "padding")),
    )


class _ProductArguments(ParallelArguments):
    """The tensors of the matrix products."""

    _fields_ = (
        ("tiles", ByteAddress),  # (SIDE², count, channels)
        ("weights", ByteAddress),  # (SIDE², groups, panels, channels of a group, columns of a panel)
        ("products", ByteAddress),  # (SIDE², count, kernels)
        ("count", Count),
    )


class WinogradConv:
    """A convolution in float32, for inference; its weights are transformed in the first call.

    Parameters
    ----------
    conv : Conv2d
        A convolution for which, and for whose inputs, `can_transform` is true.
    relu : bool
        Whether ReLU follows.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool) -> None:
        self.conv, self.relu, self.size = conv, relu, conv.kernel_size[0]
        self.bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → (N, kernels, H', W'), both channels last."""
        conv, (images, channels, height, width) = self.conv, x.shape
        padding = int(conv.padding[0])
        sides = [side + 2 * padding - self.size + 1 for side in (height, width)]
        down, across = (_tiles_along(side, self.size) for side in sides)
        x = x.contiguous(memory_format=torch.channels_last)
        out = torch.empty((images, conv.out_channels, *sides), memory_format=torch.channels_last)
        part = max(1, _BYTES // (4 * SIDE**2 * down * across * (channels + conv.out_channels)))
        for maps, target in zip(x.split(part), out.split(part), strict=True):
            self._compute(maps, target, down=down, across=across, padding=padding)
        return out

    def _compute(self, x: Tensor, out: Tensor, *, down: int, across: int, padding: int) -> None:
        images, channels, height, width = x.shape
        kernels, threads, count = self.conv.out_channels, torch.get_num_threads(), images * down * across
        if self.weight is None:
            self.weight = self._transformed()
        tiles, products = torch.empty(SIDE**2, count, channels), torch.empty(SIDE**2, count, kernels)
        zeros = torch.zeros(channels)
        shape = {"pieces": count, "down": down, "across": across, "padding": padding}
        arguments = _Arguments(height=height, width=width, **shape)
        arguments.maps, arguments.tiles, arguments.extra = x.data_ptr(), tiles.data_ptr(), zeros.data_ptr()
        _forth(self.size, channels)(arguments, threads)
        blocks = -(-count // _product_rows())
        panels = kernels // _panel()
        product = _ProductArguments(pieces=SIDE**2 * panels, count=count)
        product.tiles, product.weights, product.products = (
            tensor.data_ptr() for tensor in (tiles, self.weight, products)
        )
        _product(channels, kernels, self.conv.groups, -(-count // blocks))(product, threads)
        arguments = _Arguments(height=out.shape[2], width=out.shape[3], **shape)
        arguments.maps, arguments.tiles, arguments.extra = out.data_ptr(), products.data_ptr(), self.bias.data_ptr()
        _back(self.size, kernels, self.relu)(arguments, threads)

    def _transformed(self) -> Tensor:
        """The transformed weights as `_product` reads them."""
        matrix = torch.tensor(transforms(self.size)[1], dtype=torch.float64)
        weight = torch.einsum("ia,oxab,jb->ijox", matrix, self.conv.weight.detach().double(), matrix).float()
        panels = weight.reshape(SIDE**2, -1, _panel(), weight.shape[-1])
        return panels.transpose(2, 3).contiguous()


def _combined(code: ParallelCode, coefficients: Sequence[float], values: Sequence[Any]) -> Any:
    """The sum of vectors with constant coefficients."""
    b, total = code.builder, None
    for coefficient, value in zip(coefficients, values, strict=True):
        if not coefficient:
            continue
        if total is None:
            constant = ir.Constant(value.type, [coefficient] * _LANES)
            total = value if coefficient == 1 else b.fmul(value, constant)
        elif abs(coefficient) == 1:
            total = b.fadd(total, value) if coefficient > 0 else b.fsub(total, value)
        else:
            constant = ir.Constant(value.type, [coefficient] * _LANES)
            total = b.fadd(total, b.fmul(value, constant, flags=["contract"]), flags=["contract"])
    return total


def _position(code: ParallelCode, piece: Any) -> tuple[Any, Any, Any]:
    """Image, row and column of a tile."""
    b, a = code.builder, code.arguments
    line, column = b.sdiv(piece, a.across), b.srem(piece, a.across)
    return b.sdiv(line, a.down), b.srem(line, a.down), column


def _pixels(code: ParallelCode, corner: tuple[Any, Any, Any], side: int, channels: int, outside: Any) -> list[Any]:
    """Addresses of the side × side pixels from a corner (image, top, left); `outside` for those that do not exist."""
    b, a = code.builder, code.arguments
    image, top, left = corner
    found = []
    for dy in range(side):
        y = b.add(top, LONG(dy))
        line = b.add(b.mul(image, a.height), y)
        for dx in range(side):
            x = b.add(left, LONG(dx))
            # Unsigned, so that a negative coordinate is outside too.
            inside = b.and_(b.icmp_unsigned("<", y, a.height), b.icmp_unsigned("<", x, a.width))
            at = b.mul(b.add(b.mul(line, a.width), x), LONG(4 * channels))
            found.append(b.select(inside, code.at(a.maps, b.select(inside, at, LONG(0))), outside))
    return found


@compiled_once
def _forth(size: int, channels: int) -> Any:
    """The function from feature maps to transformed tiles. A piece is a tile."""
    code = ParallelCode(_Arguments)
    b, a, step, matrix = code.builder, code.arguments, SIDE + 1 - size, transforms(size)[0]
    with code.pieces() as piece:
        image, row, column = _position(code, piece)
        top, left = (b.sub(b.mul(place, LONG(step)), a.padding) for place in (row, column))
        places = _pixels(code, (image, top, left), SIDE, channels, a.extra)
        target = code.at(a.tiles, b.mul(piece, LONG(4 * channels)))
        apart = b.mul(a.pieces, LONG(4 * channels))  # from one point to the next
        with code.loop(channels // _LANES) as block:
            first = b.mul(block, LONG(4 * _LANES))
            half = [
                [_combined(code, coefficients, values) for coefficients in matrix]
                for values in (
                    [code.load(code.at(places[dy * SIDE + dx], first), _LANES, FLOAT) for dy in range(SIDE)]
                    for dx in range(SIDE)
                )
            ]
            for i in range(SIDE):
                for j in range(SIDE):
                    value = _combined(code, matrix[j], [half[dx][i] for dx in range(SIDE)])
                    code.store(value, code.at(target, b.add(first, b.mul(apart, LONG(i * SIDE + j)))))
    return code.compiled()


def _has_avx512() -> bool:
    return "avx512f" in host().features


def _product_lanes() -> int:
    return 16 if _has_avx512() else 8


def _panel() -> int:
    """Columns of a product that are computed together: two registers."""
    return 2 * _product_lanes()


def _product_rows() -> int:
    """Rows of a product that are computed together: with two registers each they leave some for the factors."""
    return 12 if _has_avx512() else 6


@compiled_once
def _product(channels: int, kernels: int, groups: int, rows: int) -> Any:
    """The function from transformed tiles to products. A piece is a panel of kernels at one point."""
    code = ParallelCode(_ProductArguments)
    b, a, lanes, depth = code.builder, code.arguments, _product_lanes(), channels // groups
    panels = kernels // _panel()
    zero = ir.Constant(ir.VectorType(FLOAT, lanes), [0.0] * lanes)
    blocks = b.sdiv(b.add(a.count, LONG(rows - 1)), LONG(rows))
    last = b.sub(a.count, LONG(rows))
    with code.pieces() as piece:
        point, panel = b.sdiv(piece, LONG(panels)), b.srem(piece, LONG(panels))
        group = b.sdiv(panel, LONG(panels // groups))
        weights = code.at(a.weights, b.mul(piece, LONG(4 * depth * _panel())))
        with code.loop(blocks) as block:
            # The last block begins earlier, so that it is whole.
            line = b.add(b.mul(point, a.count), code.smaller(b.mul(block, LONG(rows)), last))
            source = code.at(a.tiles, b.mul(b.add(b.mul(line, LONG(channels)), b.mul(group, LONG(depth))), LONG(4)))
            target = code.at(
                a.products, b.mul(b.add(b.mul(line, LONG(kernels)), b.mul(panel, LONG(_panel()))), LONG(4))
            )
            before, body, after = b.block, b.append_basic_block(), b.append_basic_block()
            b.branch(body)
            b.position_at_end(body)
            step = b.phi(LONG)
            running = [b.phi(zero.type) for _ in range(2 * rows)]
            sums = list(running)
            for unrolled in range(_UNROLLED):
                channel = b.add(step, LONG(unrolled))
                at = code.at(weights, b.mul(channel, LONG(4 * _panel())))
                factors = [code.load(code.at(at, 4 * lanes * half), lanes, FLOAT) for half in range(2)]
                column = code.at(source, b.mul(channel, LONG(4)))
                for row in range(rows):
                    place = b.bitcast(code.at(column, 4 * channels * row), FLOAT.as_pointer())
                    value = code.spread(b.load(place, align=4), lanes)
                    for half in range(2):
                        product = b.fmul(value, factors[half], flags=["contract"])
                        sums[2 * row + half] = b.fadd(sums[2 * row + half], product, flags=["contract"])
            following = b.add(step, LONG(_UNROLLED))
            step.add_incoming(LONG(0), before)
            step.add_incoming(following, body)
            for phi, value in zip(running, sums, strict=True):
                phi.add_incoming(zero, before)
                phi.add_incoming(value, body)
            b.cbranch(b.icmp_signed("<", following, LONG(depth)), body, after)
            b.position_at_end(after)
            for row in range(rows):
                for half in range(2):
                    code.store(sums[2 * row + half], code.at(target, 4 * (kernels * row + lanes * half)))
    return code.compiled()


@compiled_once
def _back(size: int, kernels: int, relu: bool) -> Any:
    """The function from tiles of products to feature maps. A piece is a tile."""
    code = ParallelCode(_Arguments)
    b, a, step, matrix = code.builder, code.arguments, SIDE + 1 - size, transforms(size)[2]
    zero = ir.Constant(ir.VectorType(FLOAT, _LANES), [0.0] * _LANES)
    nowhere = b.bitcast(b.alloca(ir.ArrayType(BYTE, 4 * kernels)), BYTE.as_pointer())
    with code.pieces() as piece:
        image, row, column = _position(code, piece)
        top, left = b.mul(row, LONG(step)), b.mul(column, LONG(step))
        source = code.at(a.tiles, b.mul(piece, LONG(4 * kernels)))
        apart = b.mul(a.pieces, LONG(4 * kernels))
        places = _pixels(code, (image, top, left), step, kernels, nowhere)
        with code.loop(kernels // _LANES) as block:
            first = b.mul(block, LONG(4 * _LANES))
            half = [
                [_combined(code, coefficients, values) for coefficients in matrix]
                for values in (
                    [
                        code.load(code.at(source, b.add(first, b.mul(apart, LONG(i * SIDE + j)))), _LANES, FLOAT)
                        for i in range(SIDE)
                    ]
                    for j in range(SIDE)
                )
            ]
            bias = code.load(code.at(a.extra, first), _LANES, FLOAT)
            for dy in range(step):
                for dx in range(step):
                    value = b.fadd(_combined(code, matrix[dx], [half[j][dy] for j in range(SIDE)]), bias)
                    if relu:
                        # unordered, so that NaN stays NaN
                        value = b.select(b.fcmp_ordered("<", value, zero), zero, value)
                    code.store(value, code.at(places[dy * step + dx], first))
    return code.compiled()
