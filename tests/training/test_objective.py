"""Pretraining as one objective among others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.masking.selection import Vocabulary
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.hosts import global_batch
from bertjax.parallel.mesh import make_mesh
from bertjax.training import pretraining_loss as objectives
from bertjax.training import step as steps
from bertjax.training.pretraining import check_heads, pretraining
from tests.factory import random_batch, small_config
from tests.programs import encode


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = functional.shapes(small_config().model)
    return jax.tree.map(
        lambda leaf: (0.1 * rng.standard_normal(leaf.shape)).astype(np.float32), shapes
    )


def test_a_run_begins_with_what_was_restored_and_the_rest_new():
    begun = pretraining(small_config()).initial_params({"encoder": 1, "mlm": 2}, {"encoder": 3})
    assert begun == {"encoder": 3, "mlm": 2}


def test_parameters_and_axes_are_the_models(params):
    objective = pretraining(small_config())
    assert jax.tree.structure(
        jax.eval_shape(lambda: objective.init(jax.random.key(0)))
    ) == jax.tree.structure(params)
    leaf = lambda one: not isinstance(one, dict)  # noqa: E731
    assert jax.tree.structure(objective.logical_axes(), is_leaf=leaf) == jax.tree.structure(params)


def test_parts_of_a_batch_add_up_to_its_loss(params):
    objective, batch = pretraining(small_config()), random_batch(np.random.default_rng(1), 8)
    sums = jax.jit(lambda p, b: objective.sums(p, b, key=None, layout=ANYWHERE))
    counts = objective.counts(batch)
    whole = sums(params, batch)
    parts = [
        sums(params, {name: values[half] for name, values in batch.items()})
        for half in (slice(4), slice(4, 8))
    ]
    assert float(objective.loss(whole, counts)) == pytest.approx(
        sum(float(objective.loss(p, counts)) for p in parts), rel=1e-5
    )
    means = objective.means(whole)
    assert float(means["loss"]) == pytest.approx(float(objective.loss(whole, counts)), rel=1e-6)
    assert float(means["loss"]) == pytest.approx(
        float(means["mlm_loss"] + means["nsp_loss"]), rel=1e-6
    )
    assert isinstance(whole, objectives.Sums)


def test_a_masked_batch_stays_as_it_is_and_another_is_masked_by_the_key():
    config = small_config()
    masked = random_batch(np.random.default_rng(1), 4)
    assert pretraining(config).prepare(masked, jax.random.key(0)) is masked
    plain = {name: jnp.asarray(masked[name]) for name in ("input_ids", "input_mask", "segment_ids")}
    objective = pretraining(config, Vocabulary(4, (0, 1, 2, 3, 4), 64))
    dynamic = dataclasses.replace(
        objective, data=dataclasses.replace(config.data, dynamic_masking=True)
    )
    first, again, other = (dynamic.prepare(plain, jax.random.key(n)) for n in (0, 0, 1))
    assert {"masked_lm_ids", "masked_lm_positions", "masked_lm_weights"} <= set(first)
    assert np.array_equal(first["input_ids"], again["input_ids"])
    assert not np.array_equal(first["input_ids"], other["input_ids"])


@pytest.mark.parametrize("heads,sentences,message", [
    (("pooler", "mlm", "nsp"), "next_sentence", None),
    (("mlm",), "none", None),
    (("pooler", "mlm"), "next_sentence", "model.heads: found pooler, mlm, expected mlm and nsp too, for data.sentence_objective next_sentence"),
    ((), "none", "model.heads: found none, expected mlm too, for data.sentence_objective none"),
])  # fmt: skip
def test_the_heads_that_pretraining_needs(heads, sentences, message):
    config = small_config(model={"heads": heads}, data={"sentence_objective": sentences})
    if message is None:
        check_heads(config)
        return
    with pytest.raises(UserError) as raised:
        check_heads(config)
    assert str(raised.value) == message


def test_equal_objectives_are_one_so_that_one_program_serves_both():
    assert pretraining(small_config()) == pretraining(small_config())
    assert hash(pretraining(small_config())) == hash(pretraining(small_config()))
    assert pretraining(small_config()) != pretraining(small_config(model={"hidden_size": 32}))


VOCABULARY = Vocabulary(4, (0, 1, 2, 3, 4), 64)
DYNAMIC = {"dynamic_masking": True, "masking": "token", "sentence_objective": "none"}
DIFFUSION = {
    **DYNAMIC,
    "objective": "diffusion",
    "mask_shares": (1, 0, 0),
    "max_predictions_per_seq": 16,
}
CAUSAL = {**DYNAMIC, "causal_share": 0.25, "max_predictions_per_seq": 15, "mlm_probability": 0.3}
MODELS = {
    "diffusion": ({}, DIFFUSION),
    "causal": ({}, CAUSAL),
    "causal, shifted": ({"mlm_shifted": True}, CAUSAL),
    "all causal": ({}, CAUSAL | {"causal_share": 1.0}),
    "masked, shifted": ({"mlm_shifted": True}, DYNAMIC),
}


def objective_of(name, **changes):
    model, data = MODELS[name]
    config = small_config(model=model, data=data, **changes)
    return config, pretraining(config, VOCABULARY)


def plain_rows(seed, rows=8):
    batch = random_batch(np.random.default_rng(seed), rows)
    return {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}


def losses_by_hand(config, params, prepared):
    """The negative log-likelihood of each prediction, [B, P], from the logits of all positions."""
    hidden = encode(config.model, params, prepared).hidden_BxLxD
    plain = dataclasses.replace(config.model, mlm_shifted=False)
    log_probabilities = jax.nn.log_softmax(functional.mlm_logits(plain, params, hidden))
    positions = np.asarray(prepared["masked_lm_positions"])
    read = np.maximum(positions - config.model.mlm_shifted, 0)
    at = np.take_along_axis(np.asarray(log_probabilities), read[:, :, None], 1)
    return -np.take_along_axis(at, np.asarray(prepared["masked_lm_ids"])[:, :, None], 2)[:, :, 0]


def test_the_loss_of_diffusion_is_the_bound_of_the_papers_for_each_token(params):
    config, objective = objective_of("diffusion")
    rows = plain_rows(3)
    prepared = objective.prepare(rows, jax.random.key(3))
    sums = jax.jit(lambda p, b: objective.sums(p, b, key=None, layout=ANYWHERE))(params, prepared)
    found = float(objective.loss(sums, objective.counts(prepared)))
    # Sum over rows of 1 / t * sum over masked tokens of the loss, over the tokens of all rows.
    losses, weights = losses_by_hand(config, params, prepared), prepared["masked_lm_weights"]
    tokens = (rows["input_mask"] > 0) & (rows["input_ids"] > 4)
    assert found == pytest.approx(float((losses * weights).sum()) / tokens.sum(), rel=1e-5)
    means = objective.means(sums)
    assert float(means["loss"]) == pytest.approx(found, rel=1e-6)
    assert 0 <= float(means["mlm_accuracy"]) <= 1


@pytest.mark.parametrize("name", ["causal", "causal, shifted", "all causal", "masked, shifted"])
def test_the_loss_is_the_mean_of_next_tokens_and_of_masked_ones_by_their_shares(params, name):
    config, objective = objective_of(name)
    prepared = objective.prepare(plain_rows(4), jax.random.key(4))
    sums = jax.jit(lambda p, b: objective.sums(p, b, key=None, layout=ANYWHERE))(params, prepared)
    found = float(objective.loss(sums, objective.counts(prepared)))
    losses = losses_by_hand(config, params, prepared)
    used = np.asarray(prepared["masked_lm_weights"]) > 0
    is_causal = np.zeros(8, bool)
    if "causal" in prepared:
        is_causal = np.asarray(prepared["causal"])[:, 0] > 0
    share = config.data.causal_share
    assert is_causal.sum() == share * 8
    wanted = 0.0
    for kind, weight in ((is_causal, share), (~is_causal, 1 - share)):
        if weight:
            wanted += weight * losses[kind][used[kind]].mean()
    assert found == pytest.approx(wanted, rel=1e-5)
    if share == 1:
        # Every next token: one less than the tokens of each row.
        assert used.sum() == (np.asarray(prepared["input_mask"]).sum(axis=1) - 1).sum()


QUICK = ("causal, shifted",)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n not in QUICK)]
)
def test_a_batch_in_parts_on_eight_devices_makes_the_step_of_one(name, largest):
    rows, results = plain_rows(5, 16), []
    for devices, parts in ((1, 1), (8, 2)):
        config, objective = objective_of(
            name,
            mesh={"data": devices},
            train={"gradient_accumulation_steps": parts, "batch_size": 16},
        )
        mesh = make_mesh(config.mesh, jax.devices()[:devices])
        step = steps.jit_train_step(config, mesh, objective)
        state = steps.jit_init(config, mesh, objective).state()
        _, metrics = step(state, global_batch(mesh, rows, 16))
        results.append({name: float(value) for name, value in metrics.items()})
    one, many = results
    assert one["loss"] > 1
    for metric in ("loss", "mlm_loss", "mlm_accuracy", "grad_norm"):
        difference = abs(one[metric] - many[metric]) / max(abs(one[metric]), 1)
        largest(f"{metric}, {name}", difference, 1e-5)


def test_masks_of_diffusion_and_causal_rows_follow_the_key_alone():
    for name in ("diffusion", "causal"):
        _, objective = objective_of(name)
        first, again, other = (
            objective.prepare(plain_rows(6), jax.random.key(n)) for n in (0, 0, 1)
        )
        assert all(np.array_equal(first[key], again[key]) for key in first)
        assert not np.array_equal(first["input_ids"], other["input_ids"])


@pytest.mark.parametrize("name", ["diffusion", "causal"])
def test_rows_that_are_masked_already_are_refused_where_the_step_must_mask_them(name):
    _, objective = objective_of(name)
    masked = random_batch(np.random.default_rng(0), 4)
    with pytest.raises(UserError, match="masked_lm_ids: found rows that are masked already, exp"):
        objective.prepare(masked, jax.random.key(0))


def test_a_shifted_model_predicts_no_first_token_of_a_packed_input(params):
    config, objective = objective_of("masked, shifted")
    batch = random_batch(np.random.default_rng(0), 2)
    batch["input_mask"][:] = 1
    batch["pack_ids"] = np.repeat([[1, 2], [1, 2]], 8, axis=1).astype(np.int32)
    batch["masked_lm_positions"] = np.array([[0, 3, 8, 9]] * 2, np.int32)
    batch["masked_lm_weights"] = np.ones((2, 4), np.float32)
    prepared = objective.prepare(batch, jax.random.key(0))
    assert np.asarray(prepared["masked_lm_weights"]).tolist() == [[0, 1, 0, 1]] * 2
    # Held-out batches are summed without being prepared.
    sums = jax.jit(lambda p, b: objective.sums(p, b, key=None, layout=ANYWHERE))(params, batch)
    assert float(sums.mlm_count) == 4
    losses = losses_by_hand(config, params, batch)[:, [1, 3]]
    assert float(sums.mlm_loss) == pytest.approx(float(losses.sum()), rel=1e-5)
