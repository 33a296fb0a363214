"""A whole encoder on the ways that it takes on a TPU, its kernels interpreted, and the plain one.

On a TPU, query, key and value are one product, and the norms before the sublayers are kernels.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from bertjax.config import ModelConfig
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE, WrappedLayout
from bertjax.model.matrices import fake_quantized, matrix_places

MODEL = ModelConfig(
    vocab_size=30, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=128, max_position_embeddings=128, type_vocab_size=0, positions="rotary",
    norm_place="before", first_norm=False, final_norm=True, feed_forward="gated", biases=(),
    local_attention=64, global_attn_every_n_layers=2, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0, heads=("mlm",), initializer_range=0.1, scan_unroll=2,
)  # fmt: skip
RELATIVE = {
    "positions": "none",
    "relative_positions": 63,
    "local_attention": 0,
    "biases": ("attention",),
    "first_norm": True,
}
CASES = {
    "kept results": {"remat": "dots"},
    "bias of norms": {"biases": ("norm",), "remat": "full"},
    "biases, gates, RMS norm": {
        "biases": ("attention", "mlp"),
        "value_gate": True,
        "norm_type": "rms_norm",
        "remat": "heads",
    },
    "fewer heads of keys": {"num_key_value_heads": 1, "first_norm": True, "norm_place": "both"},
    "relative positions": {**RELATIVE, "remat": "dots"},
    "relative positions with projections of their own, gates": {
        **RELATIVE,
        # The bias of relative keys adds the same to all scores of a query: its gradient is 0.
        "biases": (),
        "relative_projections": "own",
        "value_gate": True,
        "norm_inside": True,
        "layer_mix": True,
        "remat": "heads",
    },
}

QUICK = ("kept results", "biases, gates, RMS norm", "relative positions")


@dataclasses.dataclass(frozen=True)
class OnTpu(WrappedLayout):
    """The layout of one v5e core."""

    platform = "tpu"
    core_memory = 128 << 20


@pytest.fixture
def interpreted(monkeypatch):
    """Run every kernel in Pallas's interpreter: there is no TPU here."""
    compiled = pl.pallas_call

    def interpreted(*arguments, **options):
        return compiled(*arguments, **(options | {"interpret": True}))

    monkeypatch.setattr(pl, "pallas_call", interpreted)


@pytest.mark.usefixtures("interpreted", "gathered_roll")
@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(c, marks=pytest.mark.slow) for c in CASES if c not in QUICK)]
)
def test_states_and_gradients_are_those_of_the_plain_encoder(case, largest):
    difference = largest_difference(case)
    largest("encoder on a TPU's ways, loss and gradients", difference, 1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("case", CASES)
def test_rounded_matrices_are_read_on_a_tpus_ways_too(case, largest):
    difference = largest_difference(case, bits=4)
    largest("rounded encoder on a TPU's ways, loss and gradients", difference, 1e-4)


def largest_difference(case, bits=0):
    """Of the loss and the gradients on the two ways, with matrices of so many bits if there are."""
    plain = dataclasses.replace(MODEL, **CASES[case])
    ids = jax.random.randint(jax.random.key(0), (2, 128), 1, 30)
    batch = {"input_ids": ids, "input_mask": jnp.ones_like(ids).at[1, 90:].set(0)}
    batch["pack_ids"] = batch["input_mask"].at[0, 50:].set(2)
    params = functional.init(plain, jax.random.key(1))
    target = jax.random.normal(jax.random.key(2), (2, 128, 128))

    def run(config, layout):
        def loss(params):
            if bits:
                params = fake_quantized(params, matrix_places(config), bits, inputs_too=False)
            hidden = functional.encode(config, params, batch, layout=layout).hidden_BxLxD
            # At padding the kernel's states are others: there a query sees no key.
            return jnp.sum(hidden * target * batch["input_mask"][:, :, None])

        return jax.jit(jax.value_and_grad(loss))(params)

    fast = run(dataclasses.replace(plain, kernels="pallas", dropout_bits="hash"), OnTpu(ANYWHERE))
    expected = run(plain, ANYWHERE)
    differences = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max() / jnp.maximum(jnp.abs(b).max(), 1e-3)),
        fast,
        expected,
    )
    return max(jax.tree.leaves(differences))
