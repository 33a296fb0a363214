"""Replaced-token detection: its losses by hand, on any mesh and in any number of parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model import functional
from bertjax.model.functional import GENERATOR
from bertjax.model.layout import ANYWHERE
from bertjax.parallel import rules
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.training import step as steps
from bertjax.training.pretraining import pretraining
from bertjax.training.replaced import losses, networks
from tests.training.replaced.models import (
    MODEL,
    RELATIVE,
    detection_batch,
    detection_config,
    prepared_batch,
    random_params,
)


def summed(config, params, batch):
    objective = pretraining(config)
    return jax.jit(lambda p, b: objective.sums(p, b, key=None, layout=ANYWHERE))(params, batch)


def test_both_losses_and_all_figures_are_those_counted_by_hand():
    config = detection_config(replaced={"weight": 3.0, "generator_weight": 0.5})
    objective, batch = pretraining(config), prepared_batch(config)
    params = random_params(config)
    # With random parameters the bias decides for all tokens; this one is for about half of them.
    whole = functional.encode(MODEL, params, batch).hidden_BxLxD
    middle = np.median(functional.rtd_logits(MODEL, params, whole))
    params["rtd"]["output"]["bias"] -= middle
    means = objective.means(summed(config, params, batch))
    own = networks.generator_params(params)
    hidden = functional.encode(objective.generator, own, batch).hidden_BxLxD
    positions = batch["masked_lm_positions"]
    logits = functional.mlm_logits(objective.generator, own, hidden, positions)
    samples = np.asarray(losses.sampled(logits, batch[losses.SEEDS], ANYWHERE))
    ids, labels = np.array(batch["input_ids"]), np.zeros(batch["input_ids"].shape)
    nll, count = 0.0, 0
    logs = np.asarray(jax.nn.log_softmax(logits))
    for row, column in zip(*np.nonzero(batch["masked_lm_weights"]), strict=True):
        true, drawn = batch["masked_lm_ids"][row, column], samples[row, column]
        nll, count = nll - logs[row, column, true], count + 1
        ids[row, positions[row, column]] = drawn
        labels[row, positions[row, column]] = drawn != true
    seen = functional.encode(MODEL, params, {**batch, "input_ids": ids}).hidden_BxLxD
    detected = np.asarray(functional.rtd_logits(MODEL, params, seen), np.float64)
    real = np.asarray(batch["input_mask"]) > 0
    chance = 1 / (1 + np.exp(-detected))
    cross_entropy = -np.where(labels > 0, np.log(chance), np.log(1 - chance))[real].mean()
    called, truth = (detected > 0)[real], labels[real] > 0
    assert 0 < called.sum() < len(called)
    expected = {
        "mlm_loss": nll / count,
        "detection_loss": cross_entropy,
        "loss": 0.5 * nll / count + 3 * cross_entropy,
        "detection_accuracy": (called == truth).mean(),
        "detection_precision": (called & truth).sum() / called.sum(),
        "detection_recall": (called & truth).sum() / truth.sum(),
        "replaced": truth.mean(),
    }
    for name, value in expected.items():
        assert float(means[name]) == pytest.approx(value, rel=1e-5), name


def test_words_are_drawn_as_often_as_the_softmax_says():
    chances = np.array([0.5, 0.3, 0.15, 0.05])
    seeds = losses.seeds(jax.random.key(0), (20, 100))
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(chances, jnp.float32)), (20, 100, 4))
    drawn = np.asarray(losses.sampled(logits, seeds, ANYWHERE)).ravel()
    shares = np.bincount(drawn, minlength=4) / drawn.size
    # Four standard deviations of a share of 2,000.
    assert np.all(np.abs(shares - chances) < 4 * np.sqrt(chances * (1 - chances) / drawn.size))


def test_a_sample_that_is_the_true_word_is_not_called_replaced_and_padding_writes_nothing():
    batch = {
        "input_ids": np.array([[2, 4, 4, 3]], np.int32),
        "masked_lm_positions": np.array([[1, 2, 0]], np.int32),
        "masked_lm_ids": np.array([[7, 8, 0]], np.int32),
        "masked_lm_weights": np.array([[1, 1, 0]], np.float32),
    }
    ids, replaced = losses.corrupted(batch, jnp.array([[7, 9, 5]], jnp.int32))
    assert ids.tolist() == [[2, 7, 9, 3]]
    assert replaced.tolist() == [[0, 0, 1, 0]]


def test_samples_differ_by_step_and_come_again_at_the_same_one():
    config = detection_config()
    objective, batch = pretraining(config), detection_batch()
    drawn = []
    for step in (3, 3, 4):
        key = steps.random_key(0, step, steps.MASKS)
        drawn.append(np.asarray(objective.prepare(batch, key, step)[losses.SEEDS]))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_no_gradient_of_the_detection_reaches_what_the_generator_alone_has():
    config = detection_config(replaced={"generator_weight": 0.0})
    gradient = jax.jit(lambda p, b: steps.gradients(config, p, b, None)[0])
    found = gradient(random_params(config), prepared_batch(config))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found[GENERATOR]))
    assert np.any(found["embeddings"]["word"]["embedding"])


def test_the_model_has_no_table_twice_and_the_discriminator_is_what_it_would_be_alone():
    config = detection_config()
    objective = pretraining(config)
    params = objective.init(jax.random.key(0))
    assert set(params) == {"embeddings", "encoder", "rtd", GENERATOR}
    assert set(params[GENERATOR]["embeddings"]) == {"projection"}
    alone = functional.init(MODEL, jax.random.key(0))
    same = jax.tree.map(np.array_equal, {name: params[name] for name in alone}, alone)
    assert all(jax.tree.leaves(same))
    shapes = jax.tree.structure(functional.shapes(objective.generator))
    assert jax.tree.structure(networks.generator_params(params)) == shapes


def one_step(config, mesh, batch):
    objective = pretraining(config)
    state = steps.jit_init(config, mesh, objective).state()
    step = steps.jit_train_step(config, mesh, objective)
    return jax.device_get(step(state, global_batch(mesh, batch, config.train.batch_size)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "parts"),
    [({"data": 1}, 4), ({"fsdp": 4}, 1), ({"tensor": 2, "data": 2}, 1), ({"sequence": 2}, 2)],
    ids=["parts", "fsdp", "tensor", "sequence"],
)
@pytest.mark.parametrize("generator", ["tied", "disentangled"])
def test_accumulation_and_meshes_give_the_step_of_one_device(generator, mesh, parts, largest):
    """With dropout, whose bits follow the rows, and different numbers of masks in each part."""
    model = dataclasses.replace(MODEL, hidden_dropout_prob=0.1, dropout_bits="hash")
    config = detection_config(model, generator=generator, train={"dropout_numbering": "row"})
    batch = detection_batch()
    alone = one_step(config, make_mesh(config.mesh, jax.devices()[:1]), batch)
    other = config.replace(mesh={"data": 1, **mesh}, train={"gradient_accumulation_steps": parts})
    devices = int(np.prod(list(mesh.values())))
    found = one_step(other, make_mesh(other.mesh, jax.devices()[:devices]), batch)
    for name, value in alone[1].items():
        difference = abs(float(found[1][name]) - float(value)) / max(abs(float(value)), 1)
        largest("replaced tokens, other layouts: metrics", difference, 1e-5)
    for own, their in zip(
        jax.tree.leaves(found[0].opt_state), jax.tree.leaves(alone[0].opt_state), strict=True
    ):
        largest("replaced tokens, other layouts: moments", np.abs(own - their).max(), 1e-5)


def some_steps(config, devices):
    """The metrics of three steps on different batches, and the state after them."""
    mesh = make_mesh(config.mesh, jax.devices()[:devices])
    objective = pretraining(config)
    state = steps.jit_init(config, mesh, objective).state()
    step = steps.jit_train_step(config, mesh, objective)
    metrics = []
    for seed in range(3):
        batch = detection_batch(seed=seed)
        state, found = step(state, global_batch(mesh, batch, config.train.batch_size))
        metrics.append(jax.device_get(found))
    return metrics, jax.device_get(state)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh",
    [
        {"fsdp": 4},
        {"sequence": 4},
        {"fsdp": 2, "sequence": 2, "tensor": 2},
        {"replica": 2, "fsdp": 4},
    ],
    ids=lambda mesh: " ".join(f"{name} {size}" for name, size in mesh.items()),
)
def test_disentangled_embeddings_of_deberta_are_trained_alike_on_every_mesh(mesh, largest):
    """A generator of the same width and half the layers, as in arXiv 2111.09543, with dropout."""
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = dataclasses.replace(RELATIVE, **dropout, dropout_bits="hash")
    config = detection_config(model, generator="disentangled", generator_size=1.0)
    config = config.replace(replaced={"generator_layers": 0.5}, optimizer={"max_grad_norm": 0.5})
    alone, state = some_steps(config, 1)
    devices = int(np.prod(list(mesh.values())))
    found, other = some_steps(config.replace(mesh={"data": 1, **mesh}), devices)
    for own, their in zip(found, alone, strict=True):
        for name, value in their.items():
            difference = abs(float(own[name]) - float(value)) / max(abs(float(value)), 1)
            largest("disentangled embeddings, meshes: metrics", difference, 1e-5)
    for what in ("params", "opt_state"):
        leaves = [jax.tree.leaves(getattr(each, what)) for each in (other, state)]
        for own, their in zip(*leaves, strict=True):
            largest(f"disentangled embeddings, meshes: {what}", np.abs(own - their).max(), 1e-5)
    words = [
        tree["embeddings"]["word"]["embedding"] for tree in (state.params, state.params[GENERATOR])
    ]
    assert np.abs(words[0] - words[1]).max() > 1e-4  # the difference was trained


def test_the_generator_is_laid_out_by_the_table_of_all_models():
    config = detection_config()
    axes = pretraining(config).logical_axes()
    shapes = jax.eval_shape(lambda: pretraining(config).init(jax.random.key(0)))
    is_spec = rules.is_spec
    assert jax.tree.structure(axes, is_leaf=is_spec) == jax.tree.structure(shapes)
    assert axes[GENERATOR]["encoder"] == axes["encoder"]
