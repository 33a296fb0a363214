"""The cross-entropy kernels, interpreted and compiled for TPU, against plain XLA.

The interpreter for TPUs takes seconds for each shape. But its memory holds NaN at first, so that
nothing beyond the end of an array is added unseen.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from bertjax.config import MeshConfig
from bertjax.model.heads.cross_entropy import weighted_cross_entropy
from bertjax.model.heads.fused_cross_entropy import fused_cross_entropy
from bertjax.model.kernels.tpu_cross_entropy import fits, tiling
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout
from tests.tpu import compile_for_tpu

FAITHFUL = pltpu.InterpretParams(uninitialized_memory="nan")
V5E, V5P, V4 = 128 << 20, 64 << 20, 16 << 20
OTHERS = ("v4:2x2x1", "v5p:2x2x1", "v6e:2x2")


def drawn(seed, rows, words, width, vocabulary, dtype=jnp.float32):
    """Vectors, table and bias; labels and weights, of which some are 0 with any label."""
    rng = np.random.default_rng(seed)
    shapes = ((rows, words, width), (vocabulary, width), (vocabulary,))
    x, table, bias = (rng.normal(size=s).astype(np.float32) for s in shapes)
    labels = rng.integers(0, vocabulary, (rows, words)).astype(np.int32)
    weights = rng.random((rows, words)).astype(np.float32)
    ignored = rng.random((rows, words)) < 0.3
    labels[ignored] = rng.choice([-100, -1, 0, vocabulary, 2**31 - 1], ignored.sum())
    weights[ignored] = 0
    return (jnp.asarray(x, dtype), table * width**-0.5, bias), (labels, weights)


def plain(x, table, bias, labels, weights, *, z_loss):
    table = table.astype(x.dtype).astype(jnp.float32)
    logits = jnp.einsum("bpe,ve->bpv", x.astype(jnp.float32), table) + bias[None, None, :]
    return weighted_cross_entropy(logits, labels, weights, z_loss=z_loss)


def values_and_gradients(way, inputs, targets, z_loss):
    def loss(*inputs):
        sums = way(*inputs, *targets, z_loss=z_loss)
        return 2 * sums.loss, sums

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, sums), gradients = run(*inputs)
    return (*sums, *gradients)


def differences(inputs, targets, z_loss=0.0, layout=ANYWHERE, interpret=True):
    """Of each value and gradient, the norm of the difference relative to its own."""

    def fused(*arrays, z_loss):
        return fused_cross_entropy(*arrays, z_loss=z_loss, layout=layout, interpret=interpret)

    actual = values_and_gradients(fused, inputs, targets, z_loss)
    expected = values_and_gradients(plain, inputs, targets, z_loss)
    relative = []
    for a, b in zip(actual, expected, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert a.shape == b.shape
        relative.append(float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3)))
    return relative


def test_agrees_with_the_plain_form_and_its_gradients(largest):
    difference = max(differences(*drawn(77, 2, 77, 128, 777), 0.1))
    largest("TPU cross-entropy kernels, sums and gradients", difference, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "width", "vocabulary"),
    [(1, 128, 2), (64, 128, 768), (308, 256, 777), (700, 128, 1537), (300, 768, 3000)],
)
def test_reads_nothing_beyond_the_ends_of_entries_and_vocabulary(words, width, vocabulary):
    arrays = drawn(7, 2, words, width, vocabulary)
    assert max(differences(*arrays, 1e-4, interpret=FAITHFUL)) < 1e-5


@pytest.mark.slow
def test_bfloat16_differs_by_its_rounding_only(largest):
    inputs, targets = drawn(0, 2, 100, 256, 1000, jnp.bfloat16)
    all_of_them = differences(inputs, targets, 1e-4, interpret=FAITHFUL)
    *sums, d_x, d_table, d_bias = all_of_them
    largest("TPU cross-entropy kernels in bfloat16, sums and bias", max(*sums, d_bias), 1e-5)
    largest("TPU cross-entropy kernels in bfloat16, products", max(d_x, d_table), 5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_logits_of_ten_thousand_neither_overflow_nor_lose_the_others(size):
    (x, table, bias), targets = drawn(3, 1, 64, 128, 1000)
    one = bias.copy()
    one[900] = size
    assert max(differences((x, table, one), targets)) < 1e-5
    # Near 1e4 a float32 has steps of 1e-3.
    assert max(differences((x, table, bias + size), targets)) < 1e-3
    assert max(differences((x, table * 1e4, bias), targets)) < 1e-3


@pytest.mark.parametrize(
    "sizes",
    [
        {"data": 2, "fsdp": 2},
        *(
            pytest.param(x, marks=pytest.mark.slow)
            for x in ({"replica": 2, "sequence": 2}, {"replica": 2, "fsdp": 2})
        ),
    ],
    ids=str,
)
def test_devices_that_share_the_batch_compute_the_same(sizes):
    layout = MeshLayout(make_mesh(MeshConfig(**{"data": 1} | sizes), jax.devices()[:4]))
    inputs, targets = drawn(1, 4, 50, 128, 900)
    assert max(differences(inputs, targets, 0.1, layout)) < 1e-5


def test_tiles_cover_entries_and_vocabulary_with_little_padding():
    for rows in (1, 128, 257, 1000, 30_522, 50_368, 128_000, 250_002):
        cut = tiling(1, rows)
        covered = cut.cores * cut.tiles * cut.rows
        assert rows <= covered
        # At most one tile has no rows, and it is not the only one of a core.
        assert covered - 2 * cut.rows < rows
        assert cut.cores == 1 or cut.cores * cut.tiles > 2 or rows > cut.rows
    for entries in (1, 127, 2464, 2560, 4928):
        cut = tiling(entries, 30_522)
        assert cut.padded % cut.entries == 0
        assert entries <= cut.padded < entries + 128


def test_entries_that_it_has_no_room_for_are_known():
    assert fits(4928, 50_368, 768, 2, V5E)
    assert fits(4928, 50_368, 768, 2, V5P)
    assert fits(2560, 30_522, 1024, 4, V5E)
    assert not fits(4928, 50_368, 768, 2, V4)
    assert fits(4928, 30_522, 128, 2, V4)
    assert not fits(30_000, 50_368, 768, 2, V5E)
    assert not fits(128, 1000, 100, 2, V5E)
    # Without a TPU nothing is known.
    assert not fits(128, 1000, 128, 2, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "width", "vocabulary", "dtype"),
    [
        (2464, 128, 30_522, jnp.bfloat16),
        (2464, 768, 30_522, jnp.bfloat16),
        (4928, 768, 50_368, jnp.bfloat16),
        (77, 512, 999, jnp.float32),
    ],
)
@pytest.mark.parametrize("topology", ["v5e:2x2", *OTHERS])
def test_compiles_for_tpu(topology, entries, width, vocabulary, dtype):
    itemsize = jnp.dtype(dtype).itemsize
    if topology.startswith("v4") and not fits(entries, vocabulary, width, itemsize, V4):
        entries = 77
        assert fits(entries, vocabulary, width, itemsize, V4)
    shapes = [
        jax.ShapeDtypeStruct((7, entries // 7, width), dtype),
        jax.ShapeDtypeStruct((vocabulary, width), jnp.float32),
        jax.ShapeDtypeStruct((vocabulary,), jnp.float32),
        jax.ShapeDtypeStruct((7, entries // 7), jnp.int32),
        jax.ShapeDtypeStruct((7, entries // 7), jnp.float32),
    ]

    def step(x, table, bias, labels, weights):
        def loss(x, table, bias):
            return fused_cross_entropy(
                x, table, bias, labels, weights, z_loss=1e-4, layout=ANYWHERE
            ).loss

        return jax.value_and_grad(loss, (0, 1, 2))(x, table, bias)

    assert compile_for_tpu(topology, step, *shapes).count("tpu_custom_call") == 2
