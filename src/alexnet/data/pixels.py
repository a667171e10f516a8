"""Machine code for the two loops over every pixel that `prepare` has: scaling, and the sums of products of RGB.

Written as LLVM IR on explicit vectors for the processor at hand, when first needed. That takes some milliseconds, where
numba would take a second in every worker, and runs several times as fast as what numba or Pillow make of the same
loops. It counts in whole numbers, so that every processor gets the same result.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

WEIGHT_BITS = 22
"""Weights are whole numbers, 1 << 22 for one: with the 8 bits of a pixel they stay below the sign of an int32."""

_LANES = 16
_UNROLLED = 8  # a reduction by up to 3.5 has no more taps; of those a loop would cost half as much again
_SPAN = 1 << 20  # pixels in a row whose products fit an uint32 a lane
_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES, _INTS, _LONGS = _BYTE.as_pointer(), _INT.as_pointer(), _LONG.as_pointer()
_compiling = threading.Lock()


def resample(
    picture: np.ndarray, x_first: np.ndarray, x_weights: np.ndarray, y_first: np.ndarray, y_weights: np.ndarray
) -> np.ndarray:
    """Weigh the rows of a picture into new rows, rounded to 8 bits, then the pixels of each into new pixels.

    picture: (H, W, 3) uint8. y_first (h,) and x_first (w,) int64, ascending: the first of the rows or pixels that a new
    one sums; y_weights (h, taps) and x_weights (w, taps) int32: their weights, in units of 2^-22. All lie within the
    picture. Returns (h, w, 3) uint8.
    """
    narrowest = -(-_LANES // 3)
    if picture.shape[1] < narrowest:  # a vector must not reach beyond the picture
        picture = np.pad(picture, ((0, 0), (0, narrowest - picture.shape[1]), (0, 0)))
    picture = np.ascontiguousarray(picture)
    width = picture.shape[1]
    left = min(int(x_first[0]), width - narrowest)
    columns = max(int(x_first[-1]) + x_weights.shape[1] - left, narrowest)
    begins = (x_first - left) * 3
    # Four bytes are read and written for the three of a pixel.
    row = np.empty(columns * 3 + 1, dtype=np.uint8)
    out = np.empty(len(y_first) * len(x_first) * 3 + 1, dtype=np.uint8)
    with _compiling:
        function = _resampler(
            *(taps if taps <= _UNROLLED else None for taps in (x_weights.shape[1], y_weights.shape[1]))
        )
    function(
        *(picture.ctypes.data + left * 3, width * 3, columns * 3),
        *(y_first.ctypes.data, y_weights.ctypes.data, y_weights.shape[1], len(y_first), row.ctypes.data),
        *(begins.ctypes.data, x_weights.ctypes.data, x_weights.shape[1], len(x_first), out.ctypes.data),
    )
    return out[:-1].reshape(len(y_first), len(x_first), 3)


def rgb_products(images: np.ndarray) -> np.ndarray:
    """Sum over all pixels of the products of each two of R, G, B: (3, 3) int64, exact.

    images: (n, H, W, 3) uint8, contiguous.
    """
    pixels = images.reshape(-1, 3)
    whole = len(pixels) // _LANES * _LANES
    rest = pixels[whole:].astype(np.int64)
    total = rest.T @ rest
    with _compiling:
        function = _multiplier()
    sums = np.empty((6, _LANES), dtype=np.uint32)
    for start in range(0, whole, _SPAN):
        span = pixels[start : min(start + _SPAN, whole)]
        function(span.ctypes.data, len(span) // _LANES, sums.ctypes.data)
        rr, gg, bb, rg, rb, gb = sums.sum(axis=1, dtype=np.int64)
        total += np.array([[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]])
    return total


@functools.cache
def _resampler(x_unrolled: int | None, y_unrolled: int | None) -> Any:
    """A picture's address, bytes a row, bytes needed of each; first rows, weights, taps and new rows; a row of scratch;
    first bytes in it, weights, taps and new columns; out. For the numbers of taps given, or any.
    """
    code = _Code(_BYTES, _LONG, _LONG, _LONGS, _INTS, _LONG, _LONG, _BYTES, _LONGS, _INTS, _LONG, _LONG, _BYTES)
    b = code.builder
    rows, pitch, columns, y_first, y_weights, y_taps, height, row, *rest = code.arguments
    begins, x_weights, x_taps, width, out = rest

    def weigh(source: Any, distance: Any, weights: Any, taps: Any, lanes: int) -> Any:
        """The sum of what lies `distance` apart from `source` on, each times its weight: `lanes` bytes."""

        def add(total: Any, tap: Any) -> Any:
            pixels = b.zext(code.load(code.at(source, b.mul(distance, tap)), lanes), ir.VectorType(_INT, lanes))
            return b.add(total, b.mul(pixels, code.spread(b.load(code.at(weights, tap)), lanes)))

        total = code.accumulate(code.spread(_INT(1 << (WEIGHT_BITS - 1)), lanes), taps, add)
        return b.trunc(b.lshr(total, code.spread(_INT(WEIGHT_BITS), lanes)), ir.VectorType(_BYTE, lanes))

    last = b.sub(columns, _LONG(_LANES))
    with code.loop(height) as y:
        source = code.at(rows, b.mul(b.load(code.at(y_first, y)), pitch))
        weights = code.at(y_weights, b.mul(y, y_taps))
        with code.loop(b.udiv(b.add(columns, _LONG(_LANES - 1)), _LONG(_LANES))) as step:
            # The last vector overlaps the one before it rather than reach beyond the row.
            column = b.mul(step, _LONG(_LANES))
            column = b.select(b.icmp_signed("<", column, last), column, last)
            mixed = weigh(code.at(source, column), pitch, weights, y_unrolled or y_taps, _LANES)
            code.store(mixed, code.at(row, column))
        target = code.at(out, b.mul(b.mul(y, width), _LONG(3)))
        with code.loop(width) as x:
            source = code.at(row, b.load(code.at(begins, x)))
            weights = code.at(x_weights, b.mul(x, x_taps))
            mixed = weigh(source, _LONG(3), weights, x_unrolled or x_taps, 4)
            code.store(mixed, code.at(target, b.mul(x, _LONG(3))))
    return code.compiled()


@functools.cache
def _multiplier() -> Any:
    """pixels, number of vectors of 16 pixels, out: six sums of 16 lanes."""
    code = _Code(_BYTES, _LONG, _INTS)
    b = code.builder
    pixels, count, out = code.arguments
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    wide = ir.VectorType(_INT, _LANES)
    places = [b.bitcast(code.at(out, _LANES * i), wide.as_pointer()) for i in range(len(pairs))]
    for place in places:
        b.store(ir.Constant(wide, [0] * _LANES), place, align=4)
    with code.loop(count) as step:
        packed = code.load(code.at(pixels, b.mul(step, _LONG(3 * _LANES))), 3 * _LANES)
        rgb = []
        for channel in range(3):
            mask = ir.Constant(ir.VectorType(_INT, _LANES), [3 * lane + channel for lane in range(_LANES)])
            rgb.append(b.zext(b.shuffle_vector(packed, packed, mask), wide))
        for place, (i, j) in zip(places, pairs, strict=True):
            b.store(b.add(b.load(place, align=4), b.mul(rgb[i], rgb[j])), place, align=4)
    return code.compiled()


class _Code:
    """The IR of a function without a result, and what is said over and over in it."""

    def __init__(self, *arguments: ir.Type) -> None:
        self._module = ir.Module()
        function = ir.Function(self._module, ir.FunctionType(ir.VoidType(), arguments), "function")
        self.arguments = function.args
        self.builder = ir.IRBuilder(function.append_basic_block())

    def at(self, pointer: Any, index: Any) -> Any:
        return self.builder.gep(pointer, [_LONG(index) if isinstance(index, int) else index])

    def load(self, place: Any, lanes: int) -> Any:
        vector = ir.VectorType(_BYTE, lanes)
        return self.builder.load(self.builder.bitcast(place, vector.as_pointer()), align=1)

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.builder.bitcast(place, value.type.as_pointer()), align=1)

    def spread(self, value: Any, lanes: int) -> Any:
        """A vector of the same number in every lane."""
        vector = ir.VectorType(value.type, lanes)
        if isinstance(value, ir.Constant):
            return ir.Constant(vector, [value.constant] * lanes)
        one = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, _INT(0))
        zeros = ir.Constant(ir.VectorType(_INT, lanes), [0] * lanes)
        return self.builder.shuffle_vector(one, one, zeros)

    def accumulate(self, total: Any, count: Any, add: Callable[[Any, Any], Any]) -> Any:
        """`total` after `add(total, index)` for each index below `count`; unrolled where that is known by now."""
        if isinstance(count, int):
            for index in range(count):
                total = add(total, _LONG(index))
            return total
        before = self.builder.block
        with self.loop(count) as index:
            running = self.builder.phi(total.type)
            following = add(running, index)
            running.add_incoming(total, before)
            running.add_incoming(following, self.builder.block)
        return following

    @contextmanager
    def loop(self, count: Any) -> Iterator[Any]:
        """What is built within is done `count` times, at least once."""
        b = self.builder
        before, body, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(body)
        b.position_at_end(body)
        index = b.phi(_LONG)
        yield index
        following = b.add(index, _LONG(1))
        index.add_incoming(_LONG(0), before)
        index.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, count), body, after)
        b.position_at_end(after)

    def compiled(self) -> Any:
        """The function, to be called with addresses and numbers; other threads run meanwhile."""
        self.builder.ret_void()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
        )
        module = llvm.parse_assembly(str(self._module))
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        kinds = [ctypes.c_void_p if kind.type.is_pointer else ctypes.c_int64 for kind in self.arguments]
        function: Any = ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address("function"))
        function.engine = engine  # owns the code
        return function
