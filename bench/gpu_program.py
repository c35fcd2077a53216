"""Counts in a program that XLA has compiled for a GPU: kernels, matrix products, arithmetic and traffic.

The compiled text lists computations. Each instruction of a loop's body is launched as a kernel, unless it is free or a
loop itself. The fused computation that it calls says what the kernel does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

BYTES = {"pred": 1, "u8": 1, "s8": 1, "u16": 2, "bf16": 2, "f16": 2, "u32": 4, "s32": 4, "f32": 4, "u64": 8, "s64": 8}
FREE = frozenset({"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"})
"""Instructions that launch nothing."""
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-", "send", "recv")

COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(,.*)?$")
SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a compiled program."""

    name: str
    result: str
    """Type of the result, with layout."""
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def called(self, attribute: str) -> str | None:
        """Return the name of the computation that an attribute refers to, such as `calls` or `body`."""
        found = re.search(rf"\b{attribute}=%([\w.\-]+)", self.attributes)
        return found[1] if found else None

    @property
    def trip_count(self) -> int | None:
        """Number of iterations of a loop, if the compiler knows it."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found[1]) if found else None


Computations = dict[str, list[Instruction]]


@dataclass(frozen=True)
class Counts:
    """The cost of one execution of a loop's body on one device, for all of its lanes."""

    kernels: int
    products: int
    """Kernels that compute a matrix product."""
    flops: int
    """Arithmetic of the matrix products, two for each multiplication and addition."""
    bytes: int
    """Operands and results of all kernels, each counted once per kernel. Caches may make the traffic smaller."""


def parse_program(text: str) -> Computations:
    """Return the computations of a compiled program's text."""
    computations: Computations = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if start := COMPUTATION.match(line):
            current = computations[start[1]] = []
        elif found := INSTRUCTION.match(line):
            name, result, opcode, operands, attributes = found.groups()
            names = tuple(dict.fromkeys(re.findall(r"%([\w.\-]+)", operands)))
            current.append(Instruction(name, result, opcode, names, attributes or ""))
    return computations


def count_loops(program: Computations, epochs: int) -> tuple[Counts, Counts]:
    """Count an epoch and an evaluation of a program that trains lanes.

    Args:
        program: The computations.
        epochs: The epochs between two evaluations, by which the loop over epochs is known.

    Raises:
        ValueError: The program has no such loop, or several.
    """
    loops = [(name, i) for name, instructions in program.items() for i in instructions if i.opcode == "while"]
    of_epochs = [(name, body) for name, i in loops if i.trip_count == epochs and (body := i.called("body"))]
    if len(of_epochs) != 1:
        raise ValueError(f"expected one loop over {epochs} epochs, but found {len(of_epochs)}")
    evaluation, epoch = of_epochs[0]
    return count_body(program, epoch), count_body(program, evaluation)


def count_body(program: Computations, name: str) -> Counts:
    """Count the kernels of a computation, without the loops in it."""
    types = {i.name: i.result for i in program[name]}
    kernels = [i for i in program[name] if i.opcode not in FREE and i.opcode != "while"]
    products = {k.name: flops for k in kernels if (flops := product_flops(program, k))}
    return Counts(
        kernels=len(kernels),
        products=len(products),
        flops=sum(products.values()),
        bytes=sum(size_of(k.result) + sum(size_of(types[o]) for o in k.operands) for k in kernels),
    )


def product_flops(program: Computations, kernel: Instruction) -> int:
    """Return the arithmetic of the matrix products that a kernel computes."""
    body = program.get(kernel.called("calls") or "", [])
    types = {i.name: i.result for i in body}
    return sum(_dot_flops(i, types[i.operands[0]]) for i in body if i.opcode == "dot") + sum(
        product_flops(program, i) for i in body if i.opcode == "fusion"
    )


def _dot_flops(dot: Instruction, left: str) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]+)\}", dot.attributes)
    assert contracted is not None
    [(_, shape)] = _shapes(left)
    [(_, result)] = _shapes(dot.result)
    return 2 * prod(result) * prod(shape[int(axis)] for axis in contracted[1].split(","))


def count_collectives(program: Computations) -> int:
    """Return the number of operations in which devices communicate."""
    return sum(i.opcode.startswith(COLLECTIVES) for instructions in program.values() for i in instructions)


def count_aliases(text: str) -> int:
    """Return the number of arguments whose memory a result of the program reuses."""
    return len(re.findall(r"\{\d+\}: \(\d+, \{\}, \w+-alias\)", text.partition("\n")[0]))


def size_of(type_: str) -> int:
    """Return the bytes of an array or of all arrays of a tuple."""
    return sum(BYTES[element] * prod(shape) for element, shape in _shapes(type_) if element in BYTES)


def _shapes(type_: str) -> list[tuple[str, list[int]]]:
    return [(element, [int(n) for n in sizes.split(",") if n]) for element, sizes in SHAPE.findall(type_)]
