import jax.numpy as jnp
import pytest

from bertjax.estimate.cost.memory import bytes_of, memory_of
from bertjax.training.step import TrainState

ROWS, WIDTH = 4096, 1024


def test_the_account_of_a_compiled_step_is_the_compilers_and_complete(compile_for):
    def make(mesh):
        def step(step, w, moment, x):
            # The cube is needed after the large product that follows it, so both stand in memory at
            # once.
            cube = jnp.tanh(x @ w) ** 3
            return step + 1, w + jnp.sum(jnp.sort(cube @ w, axis=0) * cube), moment * 2

        return step

    arrays = [
        ((), jnp.int32, ()),
        *[((WIDTH, WIDTH), jnp.float32, ("data",))] * 2,
        ((ROWS, WIDTH), jnp.float32, ("data",)),
    ]
    compiled = compile_for(make, arrays, {"data": 4})
    counted, w, moment, x = compiled.arguments
    state = TrainState(counted, {"w": w}, {"m": moment})
    memory = memory_of(state, {"x": x}, compiled.executable, 2**30)
    assert memory.parameters == WIDTH * WIDTH * 4 // 4 == bytes_of({"w": w})
    assert memory.optimizer == memory.parameters + 4
    assert memory.batch == ROWS * WIDTH * 4 // 4
    assert memory.activations >= ROWS * WIDTH * 4 // 4
    analysis = compiled.executable.memory_analysis()
    expected = (
        analysis.argument_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )
    assert memory.total == expected + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    # Nothing was donated here, so that both results stand beside what they replace.
    assert memory.padding >= 2 * memory.parameters
    assert memory.available == 2**30


def test_bytes_of_a_cut_array_are_those_of_a_part(compile_for):
    compiled = compile_for(
        lambda mesh: lambda x: x + 1,
        [((8, 6), jnp.bfloat16, ("data", "tensor"))],
        {"data": 2, "tensor": 2},
    )
    assert bytes_of(compiled.arguments) == pytest.approx(8 * 6 * 2 / 4)
