import re

import jax.numpy as jnp
import pytest

from bertjax.estimate.program.hlo import Shape, parse

TEXT = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

%inner (p: f32[8,4]) -> (f32[8,4], s8[3]) {
  %p = f32[8,4]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %c = s8[3]{0} constant({1, 2, 3})
  ROOT %pair = (f32[8,4]{1,0:T(8,128)}, /*index=1*/s8[3]{0}) tuple(%p, %c)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0), metadata={op_name="x[\\"a\\"]"}
  %fused = (f32[8,4]{1,0}, s8[3]{0}) fusion(%x), kind=kLoop, calls=%inner, frontend_attributes={notes={
    "calls=%other": "}"
}}, metadata={op_name="jit(f)/mlp/add" stack_frame_id=3}, backend_config={"window_config":{"estimated_cycles":"1234"},"debug":"calls=%nothing"}
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%fused), index=0
}
"""


def test_a_program_reads_as_it_is_written():
    module = parse(TEXT)
    assert set(module.computations) == {"inner", "main"}
    assert module.entry.root.name == "out"
    fused = module.entry.instructions["fused"]
    assert fused.opcode == "fusion"
    assert fused.shapes == (Shape("f32", (8, 4)), Shape("s8", (3,)))
    assert fused.bytes == 8 * 4 * 4 + 3
    assert fused.operands == ("x",)
    assert fused.called("calls") == ("inner",)  # neither what a note nor what the backend says
    assert fused.cycles == 1234
    assert fused.op_name == "jit(f)/mlp/add"
    assert module.entry.root.attribute("index") == "0"
    assert module.entry.instructions["x"].cycles is None


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (Shape("bf16", (3, 5)), 30),
        (Shape("pred", (7,)), 7),
        (Shape("f32", ()), 4),
        (Shape("u64", (2,)), 16),
        (Shape("f8e4m3fn", (2, 2)), 4),
        (Shape("s4", (3,)), 2),
        (Shape("token", ()), 0),
    ],
)
def test_bytes_of_arrays(shape, size):
    assert shape.bytes == size


def test_a_text_without_an_entry_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("HloModule nothing\n")


def test_every_cycle_and_every_instruction_of_a_compiled_program_is_read(compile_for):
    compiled = compile_for(
        lambda mesh: lambda x, w: jnp.sort(jnp.tanh(x @ w), axis=1)[:, :10].sum(),
        [((1024, 512), jnp.bfloat16, ("data",)), ((512, 512), jnp.bfloat16, ())],
        {"data": 4},
    )
    read = [i for c in compiled.module.computations.values() for i in c.instructions.values()]
    written = re.findall(r'"estimated_cycles":"(\d+)"', compiled.text)
    assert sum(i.cycles or 0 for i in read) == sum(map(int, written)) > 0
    assert len(read) == len(re.findall(r"^  (?:ROOT )?%\S+ = ", compiled.text, flags=re.MULTILINE))


def test_computations_of_a_sparse_core_end_where_they_end():
    """On v5p and v6e the closing line of a computation says where it runs."""
    text = """HloModule m

%other (p: f32[2]) -> f32[2] {
  ROOT %p = f32[2]{0} parameter(0)
}, execution_thread="sparsecore"

%inner (p: f32[2]) -> f32[2] {
  ROOT %p = f32[2]{0} parameter(0)
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %fusion = f32[2]{0} fusion(%p), kind=kLoop, calls=%inner
}
"""
    assert set(parse(text).computations) == {"other", "inner", "main"}
