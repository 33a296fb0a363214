"""Gradients of masks, against finite differences of single examples."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.compression.prune.importance import importance, mask_gradients
from bertjax.compression.prune.masks import masked, ones, with_masks
from bertjax.finetuning.objective import TaskObjective
from bertjax.model.layout import ANYWHERE
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.multiple_choice.task import Choice
from bertjax.training.pretraining import pretraining
from tests.factory import SMALL_MODEL, random_batch, small_config

MODEL = dataclasses.replace(SMALL_MODEL, initializer_range=0.3)
EXAMPLES = 3


def of_task(task, model=MODEL, **targets):
    objective = TaskObjective(model, (task,))
    rng = np.random.default_rng(0)
    batch = random_batch(rng, EXAMPLES)
    rows = {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    return objective, rows | {f"{task.name}/{name}": values for name, values in targets.items()}


def single_label(model=MODEL):
    task = SingleLabel("good", ("no", "yes"))
    weights = np.array([1, 1, 0], np.float32)  # the last example only fills up the batch
    return of_task(task, model, labels=np.array([0, 1, 0], np.int32), item_weights=weights)


def choices():
    objective, batch = of_task(
        Choice("swag", 2),
        labels=np.array([1, 0, 1], np.int32),
        item_weights=np.ones(EXAMPLES, np.float32),
    )
    for name in ("input_ids", "input_mask", "segment_ids"):
        batch[name] = np.stack([batch[name], np.roll(batch[name], 1, axis=0)], axis=1)
    return objective, batch


def pretrained():
    config = small_config(model={"initializer_range": 0.3})
    return pretraining(config), random_batch(np.random.default_rng(0), EXAMPLES)


def loss_of_example(objective, params, batch, example, masks):
    """The sums of one example alone: the others of the batch are not there."""
    one = {name: values[example : example + 1] for name, values in batch.items()}
    with masked():
        sums = objective.sums(with_masks(params, masks), one, key=None, layout=ANYWHERE)
    ones_of = jax.tree.map(np.ones_like, objective.counts(one))
    return float(objective.loss(sums, ones_of))


@pytest.mark.parametrize(
    "made", [single_label, pytest.param(choices, marks=pytest.mark.slow), pretrained]
)
def test_the_gradients_are_those_of_each_example_alone(made, largest):
    objective, batch = made()
    model = objective.model
    params = objective.init(jax.random.key(1))
    found = mask_gradients(model, objective, params, [batch, batch])
    assert found.heads.shape == (2 * EXAMPLES, 2, model.num_attention_heads)
    assert found.units.shape == (2 * EXAMPLES, 2, model.intermediate_size)
    np.testing.assert_array_equal(found.heads[:EXAMPLES], found.heads[EXAMPLES:])
    step = 0.05
    for example, layer, which, number in [
        (0, 0, "heads", 1),
        (1, 1, "heads", 0),
        (1, 0, "units", 5),
    ]:
        losses = []
        for sign in (1, -1):
            masks = jax.tree.map(np.array, ones(model, 1))
            getattr(masks, which)[layer, :, number] += sign * step
            losses.append(loss_of_example(objective, params, batch, example, masks))
        expected = (losses[0] - losses[1]) / (2 * step)
        # Of a difference of losses near 1 in float32, and of the third derivative.
        largest(made.__name__, abs(getattr(found, which)[example, layer, number] - expected), 3e-3)


def test_an_example_that_fills_up_a_batch_has_no_gradient():
    objective, batch = single_label()
    params = objective.init(jax.random.key(1))
    found = mask_gradients(MODEL, objective, params, [batch])
    assert (found.heads[2] == 0).all()
    assert np.abs(found.heads[:2]).max() > 1e-3


def test_shared_layers_have_one_gradient_the_sum_of_their_uses():
    model = dataclasses.replace(MODEL, share_layers=True)
    objective, batch = single_label(model)
    params = objective.init(jax.random.key(1))
    found = mask_gradients(model, objective, params, [batch])
    assert found.heads.shape == (EXAMPLES, 1, model.num_attention_heads)
    # The same model with layers of their own, which are all the same.
    own = dataclasses.replace(objective, model=dataclasses.replace(model, share_layers=False))
    layers = jax.tree.map(lambda leaf: np.repeat(leaf, 2, axis=0), params["encoder"]["layers"])
    apart = {**params, "encoder": {**params["encoder"], "layers": layers}}
    by_layer = mask_gradients(own.model, own, apart, [batch])
    np.testing.assert_allclose(found.heads[:, 0], by_layer.heads.sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.units[:, 0], by_layer.units.sum(axis=1), atol=1e-5)


def test_importance_is_the_mean_size_or_the_mean_square():
    gradients = np.array([[[1.0, -2.0]], [[-3.0, 0.0]]], np.float32)
    assert importance(gradients, "gradient").tolist() == [[2.0, 1.0]]
    assert importance(gradients, "fisher").tolist() == [[5.0, 2.0]]
