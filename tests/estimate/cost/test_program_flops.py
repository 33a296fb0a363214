import jax
import jax.numpy as jnp
import pytest

from bertjax.estimate.cost.program_flops import program_flops

ALL = {"data": 4}
B, H, L, K, D = 8, 4, 256, 64, 512


def flops(compiled):
    return program_flops(compiled.module, compiled.schedule())


def test_a_plain_product(compile_for):
    specs = [((4 * B, D), jnp.bfloat16, ("data",)), ((D, 3 * D), jnp.bfloat16, ())]
    assert flops(compile_for(lambda mesh: lambda x, w: x @ w, specs, ALL)) == 2 * B * D * 3 * D


def test_batched_products_which_the_compiler_writes_as_padded_convolutions(compile_for):
    specs = [((4 * B, L, H, K), jnp.bfloat16, ("data",))] * 3

    def attention(q, k, v):
        return jnp.einsum("bhlm,bmhk->blhk", jax.nn.softmax(jnp.einsum("blhk,bmhk->bhlm", q, k)), v)

    compiled = compile_for(lambda mesh: attention, specs, ALL)
    assert flops(compiled) == 2 * 2 * B * H * L * L * K
    # By the compiler's own count, that of softmax beside it:
    assert compiled.executable.cost_analysis()["flops"] == pytest.approx(flops(compiled), rel=0.1)


def test_a_loop_multiplies(compile_for):
    specs = [((4 * 256, D), jnp.bfloat16, ("data",)), ((5, D, D), jnp.bfloat16, ())]
    compiled = compile_for(
        lambda mesh: lambda x, w: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0],
        specs,
        ALL,
    )
    assert flops(compiled) == 5 * 2 * 256 * D * D


def test_gradients_of_products(compile_for):
    specs = [((4 * 256, 2, D), jnp.float32, ("data",)), ((D, H, K), jnp.float32, ())]

    def loss(x, w):
        return jnp.sum(jnp.tanh(jnp.einsum("bld,dhk->blhk", x, w)) ** 2)

    compiled = compile_for(lambda mesh: jax.grad(loss, argnums=(0, 1)), specs, ALL)
    assert flops(compiled) == 3 * 2 * 256 * 2 * D * H * K
