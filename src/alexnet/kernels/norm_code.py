"""Machine code of the response normalizations, compiled for the CPU of this machine at first use.

One kernel computes both normalizations in both memory formats. It processes *tiles*, (A, B, length) boxes of the tensor
whose last axis is contiguous in memory, and sums squares over neighbors at fixed distances within the tile:

=====================  ==========================  =========================  =========================
                       A × B rows                  of length                  neighbors
=====================  ==========================  =========================  =========================
maps, channels last    1 × some positions          channels of a tower        1 apart
maps, contiguous       1 × channels of a tower     some positions             a row apart
space, channels last   height × width              some channels              a row, then a line apart
space, contiguous      1 × height                  width                      1, then a row apart
=====================  ==========================  =========================  =========================

The code is LLVM IR on explicit vectors, because automatic vectorization does not control four things that decide the
speed: full-width registers, several independent vectors at once (the chain from square to root has about sixty cycles),
bfloat16 conversion in one instruction, and prefetching of the next tile. The optimizer of LLVM is not needed; building
and compiling take tens of milliseconds, and there is no cache on disk.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir

from alexnet.kernels.code import (
    BYTE,
    BYTES,
    FLOAT,
    INT,
    LONG,
    ByteAddress,
    Code,
    Count,
    Cpu,
    KernelArguments,
    Number,
    compile_module,
    compiled_once,
    host,
)

# s ** (-1/4) without division or square root: an estimate w from the bits of s, for which e = 1 - s·w⁴ is within 0.1243
# of zero, then this minimax polynomial of (1 - e) ** (-1/4) on that interval. The relative error, 2.9e-6, is a
# thousandth of the spacing of bfloat16; one Newton step more gives float32 accuracy.
_ROOT_GUESS = 0x4F582000
_ROOT_POLYNOMIAL = (0.9999971932319688, 0.2499941202731563, 0.1577206855162725, 0.1186603735857109)

_CACHE_LINE = 16  # float32 values; rows of the scratch memory start on one


class KernelShape(NamedTuple):
    """Compile-time parameters of a kernel."""

    backward: bool
    relu: bool  # ReLU before the normalization, in the same pass
    bfloat16: bool  # else float32
    size: int  # of the window, in each direction
    rows: tuple[int, int]  # A and B of a tile
    length: int
    neighbors: tuple[str, ...]  # the directions summed over: of "element", "row", "line"

    @property
    def padding(self) -> int:
        return self.size // 2

    @property
    def row(self) -> int:
        """Distance of two rows in scratch memory; the zeros after one serve the next as zeros before it."""
        padding = self.padding if "element" in self.neighbors else 0
        return _round_up(self.length + padding)

    @property
    def line(self) -> int:
        """Distance of two lines of B rows in scratch memory."""
        return self.row * (self.rows[1] + (self.padding if "row" in self.neighbors else 0))

    @property
    def origin(self) -> int:
        """Where the first value lies in a scratch buffer: after enough zeros for the first value's neighbors."""
        return _round_up(self.padding * max(self.distance(direction) for direction in self.neighbors))

    @property
    def buffer(self) -> int:
        """Values of a scratch buffer."""
        lines = self.rows[0] + (self.padding if "line" in self.neighbors else 0)
        return self.origin + self.line * lines + self.origin

    @property
    def buffers(self) -> int:
        sums = len(self.neighbors)
        return 2 * sums + 1 if self.backward else sums

    @property
    def scratch_bytes(self) -> int:
        """Scratch memory of one thread."""
        return 4 * self.buffer * self.buffers

    def distance(self, direction: str) -> int:
        return {"element": 1, "row": self.row, "line": self.line}[direction]


_BIT = ir.IntType(1)


class Job(KernelArguments):
    """Arguments of one call, shared by its threads. Strides are in elements."""

    _fields_ = (
        ("next_tile", Count),  # counted up atomically: a thread that is done with its tiles takes the next few
        ("next_thread", Count),
        ("tiles", Count),
        ("share", Count),  # tiles taken at a time
        ("scratch", ByteAddress),
        ("x", ByteAddress),
        ("grad", ByteAddress),
        ("out", ByteAddress),
        # tile t begins at (t // inner) * outer_stride + min(t % inner * inner_stride, inner_last):
        # the last tile overlaps the one before it rather than being smaller
        ("inner", Count),
        ("outer_stride", Count),
        ("inner_stride", Count),
        ("inner_last", Count),
        ("line_stride", Count),
        ("row_stride", Count),
        ("k", Number),
        ("alpha", Number),  # of the sum: already divided by what the convention divides by
    )


class Kernel(NamedTuple):
    """Compiled code: ``address`` of a C function ``void (Job *)``, called by each thread."""

    address: int
    scratch_bytes: int  # of memory for each thread
    engine: llvm.ExecutionEngine  # owns the code


def compile_kernel(shape: KernelShape) -> Kernel:
    """The kernel for ``shape``, compiled on its first use in this process."""
    return _compile(shape, host())


@compiled_once
def _compile(shape: KernelShape, cpu: Cpu) -> Kernel:
    engine = compile_module(_Builder(shape, cpu).module, cpu)
    return Kernel(engine.get_function_address("function"), shape.scratch_bytes, engine)


def _round_up(count: int) -> int:
    return -(-count // _CACHE_LINE) * _CACHE_LINE


class _Lanes:
    """A vector in the IR with arithmetic operators; numbers are broadcast to all lanes."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value):
        self.builder, self.value = builder, value

    def spread(self, number: float) -> ir.Constant:
        return ir.Constant(self.value.type, [number] * self.value.type.count)

    def _operand(self, other: "_Lanes | float") -> ir.Value:
        return other.value if isinstance(other, _Lanes) else self.spread(other)

    # `contract` lets a product and a sum become one fused multiply-add, and nothing else
    def __add__(self, other: "_Lanes | float") -> "_Lanes":
        return _Lanes(self.builder, self.builder.fadd(self.value, self._operand(other), flags=["contract"]))

    def __mul__(self, other: "_Lanes | float") -> "_Lanes":
        return _Lanes(self.builder, self.builder.fmul(self.value, self._operand(other), flags=["contract"]))

    def __rsub__(self, other: float) -> "_Lanes":
        return _Lanes(self.builder, self.builder.fsub(self.spread(other), self.value, flags=["contract"]))

    def __sub__(self, other: "_Lanes") -> "_Lanes":
        return _Lanes(self.builder, self.builder.fsub(self.value, other.value, flags=["contract"]))

    def zero_where_not_positive(self, other: "_Lanes") -> "_Lanes":
        positive = self.builder.fcmp_unordered(">", other.value, self.spread(0.0))
        return _Lanes(self.builder, self.builder.select(positive, self.value, self.spread(0.0)))

    def zero_where_negative(self) -> "_Lanes":
        negative = self.builder.fcmp_ordered("<", self.value, self.spread(0.0))  # NaN stays NaN
        return _Lanes(self.builder, self.builder.select(negative, self.spread(0.0), self.value))


class _Place(NamedTuple):
    """Consecutive values: their position in the tensors and in a scratch buffer, and their number."""

    memory: ir.Value
    scratch: ir.Value
    lanes: int


_Pass = Callable[[_Place], None]


class _Builder(Code):
    """Emits the IR of a kernel."""

    def __init__(self, shape: KernelShape, cpu: Cpu):
        super().__init__(Job, cpu=cpu)
        self.shape = shape
        # of several registers, so that several independent chains are in flight
        self.widest = 64 if "avx512f" in cpu.features else 16
        self.b, self.field = self.builder, vars(self.arguments)
        self.prefetch = self._intrinsic("llvm.prefetch.p0", [BYTES, INT, INT, INT])
        self.fill = self._intrinsic("llvm.memset.p0.i64", [BYTES, BYTE, LONG, _BIT])
        self._thread()

    def _intrinsic(self, name: str, arguments: list[ir.Type]) -> ir.Function:
        return ir.Function(self.module, ir.FunctionType(ir.VoidType(), arguments), name)

    def _thread(self) -> None:
        b = self.b
        scratch = b.gep(self.arguments.scratch, [b.mul(self._take("next_thread"), LONG(self.shape.scratch_bytes))])
        # only the values of tiles are written; the memory between them stays zero, the padding beyond an edge
        b.call(self.fill, [scratch, BYTE(0), LONG(self.shape.scratch_bytes), _BIT(0)])
        self.scratch = b.bitcast(scratch, FLOAT.as_pointer())
        head, body, done = (b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        first = b.atomic_rmw("add", self.address_of("next_tile"), self.field["share"], "monotonic")
        b.cbranch(b.icmp_signed("<", first, self.field["tiles"]), body, done)
        b.position_at_end(body)
        share = self.smaller(self.field["share"], b.sub(self.field["tiles"], first))
        with self.loop(share) as index:
            self._tile(b.add(first, index))
        b.branch(head)
        b.position_at_end(done)
        b.ret_void()

    def _begin(self, tile: ir.Value) -> ir.Value:
        b, field = self.b, self.field
        inside = self.smaller(b.mul(b.srem(tile, field["inner"]), field["inner_stride"]), field["inner_last"])
        return b.add(b.mul(b.sdiv(tile, field["inner"]), field["outer_stride"]), inside)

    def _tile(self, tile: ir.Value) -> None:
        self.begin = self._begin(tile)
        self.ahead = self.b.sub(self._begin(self.b.add(tile, LONG(1))), self.begin)

        passes = self._passes()
        outermost = self.shape.neighbors[-1]
        if outermost == "element":
            for _, work in passes:
                with self._loop(self.shape.rows[1]) as row:
                    self._row(LONG(0), row, work)
            return
        # Other tiles exceed the first-level cache. All passes therefore advance through a tile together, each as close
        # behind the previous one as its neighbors allow, so that the data is still in the cache.
        b, count = self.b, self.shape.rows[0 if outermost == "line" else 1]
        with self._loop(count + passes[-1][0]) as step:
            for behind, work in passes:
                index = b.sub(step, LONG(behind))
                with b.if_then(b.icmp_unsigned("<", index, LONG(count))):  # unsigned: a negative index is large
                    if outermost == "line":
                        with self._loop(self.shape.rows[1]) as row:
                            self._row(index, row, work)
                    else:
                        self._row(LONG(0), index, work)

    def _passes(self) -> list[tuple[int, _Pass]]:
        """The passes over each value, and by how many rows or lines each follows the first."""
        squares = 0
        energies = squares + len(self.shape.neighbors) - 1
        direct, crosses = energies + 1, energies + 2
        last_crosses = crosses + len(self.shape.neighbors) - 1

        def square(here: _Place) -> None:
            x = self._x(here)
            self._put(squares, here, x * x)

        def normalize(here: _Place) -> None:
            self._fetch_ahead("x", here)
            self._fetch_ahead("out", here)
            w = self._root(self._window(energies, here))
            self._store(here, self._x(here) * (w * w * w))

        # grad · s^-0.75 − 1.5 · alpha · x · Σ grad · x · s^-1.75, the sum over the same window
        def weigh(here: _Place) -> None:
            self._fetch_ahead("x", here)
            self._fetch_ahead("grad", here)
            w = self._root(self._window(energies, here))
            w2 = w * w
            scaled = self._load("grad", here) * (w2 * w)
            self._put(direct, here, scaled)
            self._put(crosses, here, scaled * self._x(here) * (w2 * w2))

        def gather(here: _Place) -> None:
            self._fetch_ahead("out", here)
            x = self._x(here)
            factor = self.b.fmul(self.field["alpha"], FLOAT(1.5))
            gradient = self._get(direct, here) - x * self._spread(factor, here.lanes) * self._window(last_crosses, here)
            self._store(here, gradient.zero_where_not_positive(x) if self.shape.relu else gradient)

        behind = self.shape.padding
        if self.shape.backward:
            return [
                (0, square),
                *((0, work) for work in self._partial_sums(squares)),
                (behind, weigh),
                *((behind, work) for work in self._partial_sums(crosses)),
                (2 * behind, gather),
            ]
        return [(0, square), *((0, work) for work in self._partial_sums(squares)), (behind, normalize)]

    def _partial_sums(self, buffer: int) -> Iterator[_Pass]:
        """Sums along every direction except the last, from one buffer to the next."""
        for source, direction in enumerate(self.shape.neighbors[:-1], buffer):

            def add_up(here: _Place, source: int = source, direction: str = direction) -> None:
                self._put(source + 1, here, self._sum(source, here, direction))

            yield add_up

    def _window(self, buffer: int, here: _Place) -> _Lanes:
        return self._sum(buffer, here, self.shape.neighbors[-1])

    def _sum(self, buffer: int, here: _Place, direction: str) -> _Lanes:
        distance = self.shape.distance(direction)
        first, *others = (
            self._get(buffer, here, step * distance)
            for step in range(-(self.shape.size // 2), self.shape.size // 2 + 1)
        )
        for other in others:
            first = first + other
        return first

    def _root(self, energy: _Lanes) -> _Lanes:
        """``(k + alpha · energy) ** (-1/4)``."""
        b, lanes = self.b, energy.value.type.count
        s = energy * self._spread(self.field["alpha"], lanes) + self._spread(self.field["k"], lanes)
        integers = ir.VectorType(INT, lanes)
        quarter = b.ashr(b.bitcast(s.value, integers), ir.Constant(integers, [2] * lanes))
        guess = b.sub(ir.Constant(integers, [_ROOT_GUESS] * lanes), quarter)
        w = _Lanes(b, b.bitcast(guess, s.value.type))
        c0, c1, c2, c3 = _ROOT_POLYNOMIAL
        w2 = w * w
        e = 1.0 - (s * w2) * w2
        w = w * (((e * c3 + c2) * e + c1) * e + c0)
        if not self.shape.bfloat16:
            w2 = w * w
            e = 1.0 - (s * w2) * w2
            w = w + w * (e * 0.25)
        return w

    def _row(self, line: ir.Value, row: ir.Value, work: _Pass) -> None:
        """Apply ``work`` to a row of the tile, in vectors as wide as possible."""
        b, shape, widest = self.b, self.shape, self.widest
        memory = b.add(self.begin, b.mul(line, self.field["line_stride"]))
        memory = b.add(memory, b.mul(row, self.field["row_stride"]))
        scratch = b.add(LONG(shape.origin), b.mul(line, LONG(shape.line)))
        scratch = b.add(scratch, b.mul(row, LONG(shape.row)))
        if shape.length >= widest:
            with self._loop(shape.length // widest) as step:
                offset = b.mul(step, LONG(widest))
                work(_Place(b.add(memory, offset), b.add(scratch, offset), widest))
        done, lanes = shape.length // widest * widest, widest
        while done < shape.length:
            lanes //= 2
            if done + lanes <= shape.length:
                work(_Place(b.add(memory, LONG(done)), b.add(scratch, LONG(done)), lanes))
                done += lanes

    @contextmanager
    def _loop(self, count: int) -> Iterator[ir.Value]:
        """Emit a loop, or the enclosed code alone if it runs once."""
        if count == 1:
            yield LONG(0)
            return
        with self.loop(count) as index:
            yield index

    def _x(self, here: _Place) -> _Lanes:
        x = self._load("x", here)
        return x.zero_where_negative() if self.shape.relu else x

    def _load(self, tensor: str, here: _Place) -> _Lanes:
        return _Lanes(self.b, self.load_floats(self._at(tensor, here), here.lanes, self.shape.bfloat16))

    def _store(self, here: _Place, lanes: _Lanes) -> None:
        self.store_floats(lanes.value, self._at("out", here), self.shape.bfloat16)

    def _fetch_ahead(self, tensor: str, here: _Place) -> None:
        """Prefetch the part of ``tensor`` in the next tile; an address past the end is harmless."""
        element = 2 if self.shape.bfloat16 else 4
        for lane in range(0, here.lanes, 64 // element):
            offset = self.b.add(self.b.add(here.memory, self.ahead), LONG(lane))
            address = self.b.gep(self.field[tensor], [self.b.mul(offset, LONG(element))])
            self.b.call(self.prefetch, [address, INT(int(tensor == "out")), INT(3), INT(1)])

    def _at(self, tensor: str, here: _Place) -> ir.Value:
        element = ir.IntType(16) if self.shape.bfloat16 else FLOAT
        return self.b.gep(self.b.bitcast(self.field[tensor], element.as_pointer()), [here.memory])

    def _get(self, buffer: int, here: _Place, distance: int = 0) -> _Lanes:
        return _Lanes(self.b, self.b.load(self._scratch(buffer, here, distance), align=4))

    def _put(self, buffer: int, here: _Place, lanes: _Lanes) -> None:
        self.b.store(lanes.value, self._scratch(buffer, here, 0), align=4)

    def _scratch(self, buffer: int, here: _Place, distance: int) -> ir.Value:
        index = self.b.add(here.scratch, LONG(buffer * self.shape.buffer + distance))
        pointer = self.b.gep(self.scratch, [index])
        return self.b.bitcast(pointer, ir.VectorType(FLOAT, here.lanes).as_pointer())

    def _spread(self, number: ir.Value, lanes: int) -> _Lanes:
        return _Lanes(self.b, self.spread(number, lanes))

    def _take(self, counter: str) -> ir.Value:
        return self.b.atomic_rmw("add", self.address_of(counter), LONG(1), "monotonic")
