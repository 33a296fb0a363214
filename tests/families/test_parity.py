"""Each family beside its reference with the same weights: outputs, gradients, training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bertjax
from bertjax.config import OptimizerConfig
from bertjax.training.optimization.optimizer import make_optimizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tests.families.inputs import FIRST_ID, drawn_inputs, drawn_places  # noqa: E402
from tests.families.references import (  # noqa: E402
    MODELS,
    drawn_shape,
    gradients_as_ours,
    ours,
    reference,
    states_of,
)

SMALLEST = drawn_shape(0, largest_layers=4)
# With b2 0.999, the rounding of 1 - b2 to float32 in our bias correction, which torch computes in
# float64, moves the losses by 3e-5 of them.
ADAMW = OptimizerConfig(b2=0.98, weight_decay=0.1, max_grad_norm=0.0)
RATE, STEPS = 3e-3, 20


def inputs_of(config, shape, seed):
    rng = np.random.default_rng(seed)
    pad = max(config.position_offset - 1, 0)
    places = drawn_places(rng, shape.length)
    return drawn_inputs(rng, places, shape.length, config.vocab_size, pad, config.type_vocab_size)


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, batch):
    encoded = bertjax.encode(config, params, batch, keep_layers=True, key=jax.random.key(0))
    layers = [encoded.embedded_BxLxD, *encoded.layers_NxBxLxD]
    return layers, bertjax.mlm_logits(config, params, encoded.hidden_BxLxD)


def difference(inputs, found_BxLxD, expected_SxLxD):
    """The largest difference at the tokens of the inputs."""
    found_BxLxD, expected_SxLxD = np.asarray(found_BxLxD), expected_SxLxD.detach().numpy()
    differences = []
    for number, (row, start, end) in enumerate(inputs.places):
        expected = expected_SxLxD[number, : end - start]
        differences.append(np.abs(found_BxLxD[row, start:end] - expected).max())
    return max(differences)


def check_outputs(largest, family, shape, seed, folder):
    model = reference(family, shape, seed)
    config, params = ours(model, folder)
    inputs = inputs_of(config, shape, seed)
    with torch.no_grad():
        expected = states_of(model, *inputs.alone[:3])
    layers, logits = forward(config, params, inputs.batch)
    for found, layer in zip(layers[-len(expected.layers) :], expected.layers, strict=True):
        largest(f"{family}: hidden states", difference(inputs, found, layer), 1e-5)
    largest(f"{family}: logits", difference(inputs, logits, expected.logits_BxLxV), 1e-5)


@pytest.mark.parametrize("family", MODELS)
def test_hidden_states_and_logits_of_a_small_model_are_the_references(family, largest, tmp_path):
    check_outputs(largest, family, SMALLEST, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("family", MODELS)
def test_hidden_states_and_logits_are_the_references(family, seed, largest, tmp_path):
    check_outputs(largest, family, drawn_shape(seed), seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ModernBERT", "EuroBERT", "NeoBERT"])
def test_rows_of_8192_ids_have_the_references_hidden_states_and_logits(family, largest, tmp_path):
    """Here the last bit of a rotary frequency shows: with another ModernBERT's differ by 7e-5."""
    shape = drawn_shape(0)._replace(
        heads=2, key_value_heads=1, head_width=64, layers=4, length=8192, window=128
    )
    model = reference(family, shape, 0, scale=0.1)
    if family != "NeoBERT":
        # Whose memory does not grow with the square of the length.
        model.set_attn_implementation("sdpa")
    config, params = ours(model, tmp_path)
    ids = np.random.default_rng(0).integers(FIRST_ID, shape.vocab, (1, shape.length))
    batch = {"input_ids": ids.astype(np.int32)}
    with torch.no_grad():
        expected = states_of(model, ids, np.ones_like(ids), np.zeros_like(ids))
    layers, logits = forward(config, params, batch)
    for what, found, states in (
        ("hidden states", layers[-1], expected.layers[-1]),
        ("logits", logits, expected.logits_BxLxV),
    ):
        apart = np.abs(np.asarray(found) - states.numpy()).max()
        largest(f"{family}, rows of 8,192 ids: {what}", apart, 1e-5)


def reference_loss(model, inputs):
    """The mean over the masked words of all inputs."""
    logits = states_of(model, *inputs.alone[:3]).logits_BxLxV
    labels = torch.from_numpy(inputs.alone.labels).long()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def loss_of(config, params, batch):
    # With a key as in training; no place has dropout.
    return bertjax.pretraining_loss(config, params, batch, key=jax.random.key(0))[0]


loss_and_gradients = jax.jit(jax.value_and_grad(loss_of, argnums=1), static_argnums=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("family", MODELS)
def test_every_gradient_is_the_references(family, seed, largest, tmp_path):
    shape = drawn_shape(seed)
    model = reference(family, shape, seed)
    config, params = ours(model, tmp_path / "weights")
    inputs = inputs_of(config, shape, seed)
    expected_loss = reference_loss(model, inputs)
    expected_loss.backward()
    loss, gradients = loss_and_gradients(config, params, inputs.batch)
    relative = abs(float(loss) - expected_loss.item()) / expected_loss.item()
    largest(f"{family}: loss, relative", relative, 1e-6)

    found = by_path(gradients)
    expected = by_path(gradients_as_ours(model, tmp_path / "gradients"))
    assert found.keys() == expected.keys()
    # Where positions do not enter the scores, a key's bias moves all of a query's scores alike: its
    # gradient is 0, and what is there is rounding.
    is_plain = config.positions != "rotary" and not config.relative_positions
    for path, gradient in expected.items():
        like = path.replace("key/bias", "value/bias") if is_plain else path
        scale = np.abs(expected[like]).max()
        error = np.abs(found[path] - gradient).max()
        assert scale > 0, path
        largest(f"{family}: gradients, of the tensor's largest", error / scale, 1e-4)


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def reference_optimizer(model):
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        # The weights of earlier layers' outputs are the only vectors that decay.
        decays = parameter.ndim > 1 or "alphas" in name
        (decayed if decays else others).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": ADAMW.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=RATE,
        betas=(ADAMW.b1, ADAMW.b2),
        eps=ADAMW.eps,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("family", MODELS)
def test_twenty_steps_have_the_losses_of_the_reference(family, seed, largest, tmp_path):
    shape = drawn_shape(seed)
    model = reference(family, shape, seed)
    config, params = ours(model, tmp_path)
    inputs = inputs_of(config, shape, seed)
    their_optimizer = reference_optimizer(model)
    optimizer = make_optimizer(ADAMW)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        loss, gradients = jax.value_and_grad(loss_of, argnums=1)(config, params, batch)
        updates, state = optimizer.update(gradients, state, params)
        scaled = jax.tree.map(lambda update: jnp.float32(RATE) * update, updates)
        return loss, optax.apply_updates(params, scaled), state

    losses = []
    for _ in range(STEPS + 1):
        expected = reference_loss(model, inputs)
        loss, params, state = step(params, state, inputs.batch)
        losses.append(float(loss))
        relative = abs(losses[-1] - expected.item()) / expected.item()
        largest(f"{family}: loss of {STEPS} steps, relative", relative, 1e-4)
        their_optimizer.zero_grad()
        expected.backward()
        their_optimizer.step()
    # The words of the one batch are learned, so errors of the steps would show in the loss.
    assert losses[-1] < 0.9 * losses[0]
