"""Machine code for memory-bound loops, compiled for the CPU of this machine at first use.

A loop is written as LLVM IR on explicit vectors. It compiles in milliseconds, where numba takes a second, and needs no
compiler on the machine. It controls what automatic vectorization does not: full-width registers, bfloat16 conversion in
one instruction, and prefetching.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple, TypeVar

import llvmlite.binding as llvm
from llvmlite import ir

BYTE, INT, LONG, FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
BYTES, INTS, LONGS = BYTE.as_pointer(), INT.as_pointer(), LONG.as_pointer()
_SHORT = ir.IntType(16)
T = TypeVar("T")
_process = os.getpid()
_compiling = threading.RLock()


class Cpu(NamedTuple):
    """A CPU, as LLVM names it."""

    name: str
    features: frozenset[str]  # the supported ones
    attributes: str  # supported and unsupported ones, as "+sse,-avx..."


@functools.cache
def host() -> Cpu:
    """Return the CPU of this machine."""
    features = llvm.get_host_cpu_features()
    present = frozenset(feature for feature, has in features.items() if has)
    return Cpu(llvm.get_host_cpu_name(), present, features.flatten())


def compiled_once(build: Callable[..., T]) -> Callable[..., T]:
    """Cache the result of a compiling function per arguments, and run it in one thread at a time, as LLVM requires."""
    cached = functools.cache(build)

    @functools.wraps(build)
    def get(*arguments: Any) -> T:
        with _compiling:
            return cached(*arguments)

    return get


def compile_module(module: ir.Module, cpu: Cpu) -> llvm.ExecutionEngine:
    """Compile a module. The machine code lives as long as the returned engine. The IR is not optimized further."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu.name, features=cpu.attributes, opt=3, jit=True
    )
    parsed = llvm.parse_assembly(str(module))
    parsed.triple, parsed.data_layout = machine.triple, str(machine.target_data)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine


def run(address: int, argument: int, threads: int) -> None:
    """Call the C function ``void (void *)`` at `address` in `threads` threads, including this one."""
    work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    parallel = _openmp_parallel()
    if threads == 1:
        work(argument)
    elif parallel is not None and os.getpid() == _process:  # OpenMP's threads do not survive a fork
        parallel(ctypes.c_void_p(address), ctypes.c_void_p(argument), threads, 0)
    else:
        others = [threading.Thread(target=work, args=(argument,)) for _ in range(threads - 1)]
        for thread in others:
            thread.start()
        work(argument)
        for thread in others:
            thread.join()


@functools.cache
def _openmp_parallel() -> Callable[..., None] | None:
    """Return the entry of a parallel region in the OpenMP runtime of PyTorch, or None if it has another name.

    The threads of PyTorch spin for some milliseconds after each operation. Other threads would compete with them for
    the cores.
    """
    try:
        import torch

        parallel = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    return parallel


Count, Number = ctypes.c_int64, ctypes.c_float


class ByteAddress(ctypes.c_void_p):
    """The address of bytes, or of values of a type that the code casts them to."""


class IntAddress(ctypes.c_void_p):
    """The address of int32."""


class LongAddress(ctypes.c_void_p):
    """The address of int64."""


_IR_TYPES = {Count: LONG, Number: FLOAT, ByteAddress: BYTES, IntAddress: INTS, LongAddress: LONGS}


Fields = tuple[tuple[str, Any], ...]


class KernelArguments(ctypes.Structure):
    """The arguments of a kernel: Python fills the structure by name, and the machine code reads it by name.

    Each kernel declares its own as a subclass; the types of `_fields_` are `Count`, `Number` and the addresses.
    """

    @classmethod
    def fields(cls) -> dict[str, Any]:
        """The type of each field, those of the base classes first, as in memory."""
        return dict(field for kind in reversed(cls.__mro__) for field in kind.__dict__.get("_fields_", ()))

    @classmethod
    def ir_type(cls) -> ir.LiteralStructType:
        """The structure in the IR."""
        return ir.LiteralStructType([_IR_TYPES[kind] for kind in cls.fields().values()])


class ParallelArguments(KernelArguments):
    """The arguments of `ParallelCode`: the caller sets `pieces`, the number of pieces of work."""

    _fields_: ClassVar[Fields] = (
        ("next_piece", Count),  # counted up atomically: a thread that is done with its pieces takes the next few
        ("pieces", Count),
        ("share", Count),  # pieces taken at a time
    )


class BFloatType(ir.types.Type):
    """The type bfloat16, which llvmlite does not define."""

    def _to_string(self) -> str:
        return "bfloat"


class Code:
    """The IR of a function ``void (Arguments *)``, with helpers for vectors, loops and conversions.

    `arguments` has the values of the fields of the structure, by name.
    """

    def __init__(self, arguments: type[KernelArguments], *, cpu: Cpu | None = None) -> None:
        self.cpu = cpu or host()
        self.module = ir.Module()
        kind = ir.FunctionType(ir.VoidType(), [arguments.ir_type().as_pointer()])
        function = ir.Function(self.module, kind, "function")
        self.builder = ir.IRBuilder(function.append_basic_block())
        self._structure, self._names = function.args[0], list(arguments.fields())
        self.arguments: Any = SimpleNamespace(
            **{name: self.builder.load(self.address_of(name)) for name in self._names}
        )

    def address_of(self, name: str) -> Any:
        """The address of a field of the arguments."""
        return self.builder.gep(self._structure, [LONG(0), INT(self._names.index(name))])

    def at(self, pointer: Any, index: Any) -> Any:
        return self.builder.gep(pointer, [LONG(index) if isinstance(index, int) else index])

    def load(self, place: Any, lanes: int, element: ir.Type = BYTE) -> Any:
        vector = ir.VectorType(element, lanes)
        return self.builder.load(self.builder.bitcast(place, vector.as_pointer()), align=1)

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.builder.bitcast(place, value.type.as_pointer()), align=1)

    def load_floats(self, place: Any, lanes: int, bfloat16: bool) -> Any:
        """A vector of float32, read as such or as bfloat16."""
        if not bfloat16:
            return self.load(place, lanes, FLOAT)
        return widened(self.builder, self.load(place, lanes, _SHORT))

    def store_floats(self, value: Any, place: Any, bfloat16: bool) -> None:
        """Write a vector of float32 as such, or rounded to bfloat16."""
        self.store(rounded(self.builder, value, self.cpu) if bfloat16 else value, place)

    def spread(self, value: Any, lanes: int) -> Any:
        """Return a vector with the same number in every lane."""
        vector = ir.VectorType(value.type, lanes)
        if isinstance(value, ir.Constant):
            return ir.Constant(vector, [value.constant] * lanes)
        one = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, INT(0))
        zeros = ir.Constant(ir.VectorType(INT, lanes), [0] * lanes)
        return self.builder.shuffle_vector(one, one, zeros)

    def smaller(self, one: Any, other: Any) -> Any:
        """Return the smaller of two signed numbers."""
        return self.builder.select(self.builder.icmp_signed("<", one, other), one, other)

    def accumulate(self, total: Any, count: Any, add: Callable[[Any, Any], Any]) -> Any:
        """Apply ``total = add(total, index)`` for each index below `count`; unrolled if `count` is an int."""
        if isinstance(count, int):
            for index in range(count):
                total = add(total, LONG(index))
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
        """Emit a loop: the enclosed code runs `count` times, at least once."""
        b = self.builder
        before, body, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(body)
        b.position_at_end(body)
        index = b.phi(LONG)
        yield index
        following = b.add(index, LONG(1))
        index.add_incoming(LONG(0), before)
        index.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, LONG(count) if isinstance(count, int) else count), body, after)
        b.position_at_end(after)

    def compiled(self) -> Any:
        """Return the compiled function, called with its `KernelArguments`; it releases the interpreter lock."""
        self.builder.ret_void()
        engine = compile_module(self.module, self.cpu)
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("function"))

        def function(arguments: KernelArguments, engine: Any = engine) -> None:  # the engine owns the code
            call(ctypes.addressof(arguments))

        return function


class ParallelCode(Code):
    """A function that several threads call at once; each takes the next pieces of many equal pieces of work.

    The compiled function is called as ``function(arguments, threads)``, with its `ParallelArguments`.
    """

    _SHARES = 8  # each thread takes its pieces in this many steps, so that a delayed thread does not delay the others

    @contextmanager
    def pieces(self) -> Iterator[Any]:
        """Emit the loop over pieces of work: the enclosed code runs for every piece; yields its number."""
        b = self.builder
        head, body, done = (b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        pieces, share = self.arguments.pieces, self.arguments.share
        first = b.atomic_rmw("add", self.address_of("next_piece"), share, "monotonic")
        b.cbranch(b.icmp_signed("<", first, pieces), body, done)
        b.position_at_end(body)
        with self.loop(self.smaller(share, b.sub(pieces, first))) as index:
            yield b.add(first, index)
        b.branch(head)
        b.position_at_end(done)

    def compiled(self) -> Any:
        self.builder.ret_void()
        engine = compile_module(self.module, self.cpu)
        address = engine.get_function_address("function")

        def function(arguments: ParallelArguments, threads: int, engine: Any = engine) -> None:
            arguments.share = max(1, arguments.pieces // (threads * self._SHARES))
            run(address, ctypes.addressof(arguments), threads)

        return function


def widened(builder: ir.IRBuilder, halves: Any) -> Any:
    """Convert the bits of bfloat16 to float32."""
    integers = ir.VectorType(INT, halves.type.count)
    bits = builder.shl(builder.zext(halves, integers), ir.Constant(integers, [16] * halves.type.count))
    return builder.bitcast(bits, ir.VectorType(FLOAT, halves.type.count))


def rounded(builder: ir.IRBuilder, value: Any, cpu: Cpu) -> Any:
    """Convert float32 to the bits of bfloat16, rounded to nearest, ties to even."""
    b, lanes = builder, value.type.count
    halves, integers = ir.VectorType(_SHORT, lanes), ir.VectorType(INT, lanes)
    if "avx512bf16" in cpu.features:
        return b.bitcast(b.fptrunc(value, ir.VectorType(BFloatType(), lanes)), halves)
    bits = b.bitcast(value, integers)
    sixteen, one, below_half = (ir.Constant(integers, [number] * lanes) for number in (16, 1, 0x7FFF))
    to_even = b.add(b.and_(b.lshr(bits, sixteen), one), below_half)
    return b.trunc(b.lshr(b.add(bits, to_even), sixteen), halves)
