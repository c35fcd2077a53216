"""Counts in compiled programs, on a program short enough to count by hand, and the roofline."""

from __future__ import annotations

import pytest
from gpu_program import Counts, count_aliases, count_collectives, count_loops, parse_program, size_of
from gpu_targets import gpu_targets

PROGRAM = """\
HloModule jit_f, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias), {1}: (2, {}, may-alias) }, entry=0

%fused_product (a: f32[8,4,16], b: f32[8,16,32]) -> f32[8,4,32] {
  %a = f32[8,4,16]{2,1,0} parameter(0)
  %b = f32[8,16,32]{2,1,0} parameter(1)
  ROOT %dot.1 = f32[8,4,32]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}
}

%nested (a: f32[8,4,16], b: f32[8,16,32]) -> f32[8,4,32] {
  %a.1 = f32[8,4,16]{2,1,0} parameter(0)
  %b.1 = f32[8,16,32]{2,1,0} parameter(1)
  ROOT %f = f32[8,4,32]{2,1,0} fusion(%a.1, %b.1), kind=kCustom, calls=%fused_product
}

%epoch (state: (s32[], f32[8,4,16])) -> (s32[], f32[8,4,16]) {
  %state = (s32[], /*index=1*/f32[8,4,16]{2,1,0}) parameter(0)
  %x = f32[8,4,16]{2,1,0} get-tuple-element(%state), index=1
  %w = f32[8,16,32]{2,1,0} constant({...})
  %y = f32[8,4,32]{2,1,0} fusion(%x, %w), kind=kCustom, calls=%nested
  %squares = (f32[8]{0}, pred[8]{0}) fusion(%y, %y), kind=kInput, calls=%fused_squares
  ROOT %next = (s32[], f32[8,4,16]{2,1,0}) tuple(%x)
}

%evaluation (state: (s32[], f32[8,4,16])) -> (s32[], f32[8,4,16]) {
  %s = (s32[], f32[8,4,16]{2,1,0}) parameter(0)
  %loop = (s32[], f32[8,4,16]{2,1,0}) while(%s), body=%epoch, backend_config={"known_trip_count":{"n":"5"}}
  %g = f32[8,4,16]{2,1,0} get-tuple-element(%loop), index=1
  ROOT %copied = f32[8,4,16]{2,1,0} copy(%g)
}
"""


def test_counts_are_those_of_the_loops_bodies() -> None:
    epoch, evaluation = count_loops(parse_program(PROGRAM), 5)
    arrays = 4 * (8 * 4 * 16 + 8 * 16 * 32 + 8 * 4 * 32)
    squares = 4 * 8 * 4 * 32 + 4 * 8 + 8  # its operand is named twice and read once
    assert epoch == Counts(kernels=2, products=1, flops=2 * 8 * 4 * 16 * 32, bytes=arrays + squares)
    assert evaluation == Counts(kernels=1, products=0, flops=0, bytes=2 * 4 * 8 * 4 * 16)


def test_a_loop_of_another_length_is_not_the_loop_over_epochs() -> None:
    with pytest.raises(ValueError, match="one loop over 6 epochs"):
        count_loops(parse_program(PROGRAM), 6)


def test_arguments_that_results_reuse() -> None:
    assert count_aliases(PROGRAM) == 2
    assert count_aliases(PROGRAM.replace("may-alias", "must-alias")) == 2


def test_communication_between_devices_is_counted() -> None:
    assert count_collectives(parse_program(PROGRAM)) == 0
    for opcode in ("all-reduce", "all-gather-start", "collective-permute"):
        assert count_collectives(parse_program(PROGRAM.replace("} copy(", f"}} {opcode}("))) == 1


@pytest.mark.parametrize(
    ("type_", "size"),
    [("f32[]", 4), ("bf16[3,5]{1,0}", 30), ("(f32[2]{0}, /*index=1*/pred[7]{0:T(128)})", 15), ("token[]", 0)],
)
def test_size_of(type_: str, size: int) -> None:
    assert size_of(type_) == size


def test_published_arithmetic_is_that_of_the_cores_at_their_clock() -> None:
    for target in gpu_targets().values():
        cores = target.numbers["multiprocessors"] * target.numbers["cores_per_multiprocessor"]
        assert target.flops("float32") == pytest.approx(2 * cores * target.numbers["clock_ghz"] * 1e9, rel=0.01)
        assert target.flops("float32") <= target.flops("tf32") < target.flops("bf16")
