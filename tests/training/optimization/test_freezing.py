import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import OptimizerConfig
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.training import step as steps
from bertjax.training.optimization.freezing import step_scales
from tests.factory import random_batch, small_config
from tests.families.tiny import tiny

CONSTANT = {"schedule": "constant", "warmup_steps": 0, "max_grad_norm": 0.0}


def moved(**optimizer):
    """Return the largest change of each group in a step of SGD-like size, layers apart."""
    config = small_config(optimizer=CONSTANT | {"peak_learning_rate": 1e-3} | optimizer)
    state = jax.jit(lambda: steps.init_state(config))()
    new, metrics = jax.jit(lambda s, b: steps.train_step(config, s, b))(
        state, random_batch(np.random.default_rng(0), 4)
    )
    assert metrics["skipped"] == 0
    far = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)), new.params, state.params)
    layers = [
        max(leaf[n].max() for leaf in jax.tree.leaves(far["encoder"]))
        for n in range(config.model.num_hidden_layers)
    ]
    groups = {
        name: max(leaf.max() for leaf in jax.tree.leaves(tree))
        for name, tree in far.items()
        if name != "encoder"
    }
    return groups, layers


def test_the_rate_falls_layer_by_layer_down_to_the_embeddings():
    # Adam's first step has size 1 wherever there is a gradient.
    plain, plain_layers = moved(weight_decay=0.0)
    decayed, layers = moved(weight_decay=0.0, layer_decay=0.5)
    depth = len(layers)
    for n, (before, after) in enumerate(zip(plain_layers, layers, strict=True)):
        assert after == pytest.approx(before * 0.5 ** (depth - 1 - n), rel=1e-3)
    assert decayed["embeddings"] == pytest.approx(plain["embeddings"] * 0.5**depth, rel=1e-3)
    for head in ("pooler", "mlm", "nsp"):
        assert decayed[head] == pytest.approx(plain[head], rel=1e-6)


def test_what_is_frozen_stays_bit_for_bit_and_the_rest_moves():
    groups, layers = moved(freeze="embeddings")
    assert groups["embeddings"] == 0
    assert min(layers) > 0
    groups, layers = moved(freeze="encoder")
    assert (groups["embeddings"], groups["pooler"], max(layers)) == (0, 0, 0)
    assert groups["mlm"] > 0
    assert groups["nsp"] > 0
    groups, layers = moved(freeze_layers=1)
    assert (groups["embeddings"], layers[0]) == (0, 0)
    assert min(layers[1:]) > 0


def test_the_gradient_that_is_clipped_is_of_what_moves_only():
    config = small_config(optimizer={"freeze": "encoder"})
    state = steps.init_state(config)
    batch = random_batch(np.random.default_rng(0), 4)
    _, frozen = jax.jit(lambda s, b: steps.train_step(config, s, b))(state, batch)
    everything, _ = jax.jit(lambda p, b: steps.gradients(config, p, b, None)[:2])(
        state.params, batch
    )
    assert (
        0
        < frozen["grad_norm"]
        < 0.9 * float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(everything))))
    )


def test_the_scales_of_all_parameters_have_their_ranks():
    config = small_config()
    shapes = functional.shapes(config.model)
    scales = step_scales(OptimizerConfig(layer_decay=0.9, freeze_layers=1), shapes)
    for scale, leaf in zip(jax.tree.leaves(scales), jax.tree.leaves(shapes), strict=True):
        assert np.ndim(scale) in (0, len(leaf.shape))


def test_more_layers_frozen_than_there_are_is_refused():
    with pytest.raises(
        UserError, match=r"optimizer.freeze_layers: found 99, expected at most the model.s layers"
    ):
        small_config(optimizer={"freeze_layers": 99})


def test_what_is_not_of_one_layer_has_the_scale_of_what_it_stands_beside():
    model = tiny("gpt_bert", norm_scale=True)
    shapes = functional.shapes(model)
    encoder = step_scales(OptimizerConfig(layer_decay=0.5, freeze_layers=1), shapes)["encoder"]
    layers = np.array([0, 0.25, 0.5, 1], np.float32)
    kernel = encoder["layers"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(kernel, layers[:, None, None])
    # Two rows of the mix for each layer, one for each sublayer.
    np.testing.assert_array_equal(encoder["mix"], np.repeat(layers, 2)[:, None])
    assert encoder["final_norm"] == {"scale": 1.0}
    # The frozen layer reads the vectors of relative positions.
    assert encoder["relative"]["embedding"] == 0
    free = step_scales(OptimizerConfig(layer_decay=0.5), shapes)["encoder"]
    assert free["relative"]["embedding"] == 0.5**4
    assert set(free["relative_layer_norm"].values()) == {0.5**4}
