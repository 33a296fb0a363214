import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bertjax.compression.prune.choice import (
    counts_by_layer,
    counts_by_layer_within,
    counts_within,
    exchanged,
    kept_count,
    most_important,
)
from bertjax.errors import UserError


@given(st.integers(1, 5000), st.floats(0, 0.99), st.sampled_from([1, 8, 128]))
def test_the_share_that_stays_is_within_half_a_multiple_or_none_would(total, share, multiple):
    # None would stay where less than half a multiple does.
    nothing = round(total * (1 - share) / multiple) == 0
    if nothing:
        with pytest.raises(UserError, match="expected a share that leaves at least one"):
            kept_count(total, share, "--mlp", multiple)
        return
    kept = kept_count(total, share, "--mlp", multiple)
    assert kept == total or kept % multiple == 0
    assert abs(kept - total * (1 - share)) <= multiple / 2


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan"), float("inf"), 30.0])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match=f"--heads: found {share}, expected a share to prune"):
        kept_count(12, share, "--heads")


def test_each_layer_loses_its_own_least_important_ones():
    gradients = np.array([[[1.0, -3, 2, 0], [0, 1, -1, 4]], [[1, 3, -2, 0], [0, 1, 1, -4]]])
    kept = most_important(gradients, [2, 2], "gradient")
    # Of equal ones the first stays.
    assert [own.tolist() for own in kept] == [[1, 2], [1, 3]]


def test_gradient_and_square_may_rank_otherwise():
    # Often a little, against seldom and much: 4 x 1 is more than 3, and 4 x 1 less than 9.
    gradients = np.array([[[1.0, 3]], [[1, 0]], [[1, 0]], [[-1, 0]]])
    assert most_important(gradients, [1], "gradient")[0].tolist() == [0]
    assert most_important(gradients, [1], "fisher")[0].tolist() == [1]


def test_two_that_say_the_same_are_not_both_pruned():
    # Without either the other still says it; without both it is lost. The last is independent.
    same = np.array([1.0, -1, 1, -1])
    gradients = np.stack([same, same, 1.1 * np.array([1.0, 1, -1, -1])], axis=1)
    stays = exchanged(gradients, np.array([False, False, True]))
    assert stays.tolist() in ([True, False, False], [False, True, False])


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_exchanges_make_the_estimated_loss_no_larger(seed, kept):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(9, 6)) @ rng.normal(size=(6, 6))
    loss = lambda stays: np.sum(gradients[:, ~stays].sum(axis=1) ** 2)  # noqa: E731
    before = np.zeros(6, bool)
    before[np.argsort(-np.sum(gradients**2, axis=0))[:kept]] = True
    after = exchanged(gradients, before)
    assert after.sum() == kept
    assert loss(after) <= loss(before) * (1 + 1e-12)


@given(st.integers(0, 10_000), st.floats(0, 0.95))
def test_numbers_within_a_cost_are_the_best_of_all_that_are(seed, share):
    rng = np.random.default_rng(seed)
    heads, units = rng.random((2, 4)), rng.random((2, 7))
    costs = 3.0, 1.0
    budget = (1 - share) * (4 * costs[0] + 7 * costs[1])

    def lost(kept_heads, kept_units):
        """What goes, layer by layer: the least important ones."""
        total = 0.0
        for values, kept in ((heads, kept_heads), (units, kept_units)):
            for layer in values:
                total += sum(sorted(layer)[: len(layer) - kept])
        return total

    fitting = {}
    for kept_heads in range(1, 5):
        for kept_units in range(1, 8):
            if kept_heads * costs[0] + kept_units * costs[1] <= budget:
                fitting[kept_heads, kept_units] = lost(kept_heads, kept_units)
    if not fitting:
        with pytest.raises(UserError, match="--flops: found .*, expected a share that leaves a he"):
            counts_within(heads, units, costs, share)
        return
    found = counts_within(heads, units, costs, share)
    assert found in fitting
    assert fitting[found] == pytest.approx(min(fitting.values()))


@given(
    importance=arrays(np.float64, (3, 5), elements=st.floats(0, 10)),
    share=st.floats(0, 0.9),
)
def test_by_layer_the_most_important_of_all_layers_stay(importance, share):
    counts = counts_by_layer(importance, share, "--heads")
    assert counts.sum() == max(kept_count(15, share, "--heads"), 3)
    assert counts.min() >= 1
    kept = most_important(importance[None], counts, "gradient")
    pruned = [np.delete(importance[layer], own) for layer, own in enumerate(kept)]
    # No pruned one is more important than a kept one that is not the first of its layer.
    most_pruned = max((own.max() for own in pruned if own.size), default=0.0)
    others = [np.sort(importance[layer][own])[:-1] for layer, own in enumerate(kept)]
    least_kept = min((own.min() for own in others if own.size), default=np.inf)
    assert most_pruned <= least_kept


@given(
    heads=arrays(np.float64, (3, 4), elements=st.floats(0, 10)),
    units=arrays(np.float64, (3, 6), elements=st.floats(0, 10)),
    share=st.floats(0, 0.5),
)
def test_by_layer_the_flops_that_stay_are_within_their_share(heads, units, share):
    costs = 5.0, 1.0
    kept_heads, kept_units = counts_by_layer_within(heads, units, costs, share)
    assert kept_heads.min() >= 1
    assert kept_units.min() >= 1
    whole = 3 * (4 * 5.0 + 6 * 1.0)
    left = kept_heads.sum() * 5.0 + kept_units.sum() * 1.0
    assert left <= (1 - share) * whole + 1e-6
    # What is not used would not do for the dearest part.
    assert left > (1 - share) * whole - 5.0 - 1e-6


def test_flops_that_leave_no_part_of_each_kind_are_refused():
    with pytest.raises(UserError, match="--flops: found 0.95, expected a share that leaves a head"):
        counts_by_layer_within(np.ones((2, 2)), np.ones((2, 2)), (1.0, 1.0), 0.95)
