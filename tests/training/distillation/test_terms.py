"""Each term against the papers' formulas, written with loops in PyTorch, in float64."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from bertjax.model.heads.soft_targets import soft_binary_losses, soft_losses, weighted_sum
from bertjax.training.distillation import terms
from bertjax.training.pretraining_loss import is_token

torch = pytest.importorskip("torch")
LENGTHS = [5, 3, 1]
BATCH = {
    "input_ids": np.ones((3, 5), np.int32),
    "input_mask": (np.arange(5)[None, :] < np.array(LENGTHS)[:, None]).astype(np.int32),
}
PACKED = {**BATCH, "pack_ids": np.array([[1, 1, 2, 2, 2], [1, 2, 2, 0, 0], [1, 0, 0, 0, 0]])}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tokens():
    """(row, position) of each token that is not padding."""
    return [(row, place) for row, length in enumerate(LENGTHS) for place in range(length)]


def cosine_by_loop(own, taught):
    total = 0
    for at in tokens():
        a, b = own[at], taught[at]
        total = total + 1 - (a @ b) / (a.norm() * b.norm())
    return total


def square_by_loop(own, taught):
    return sum(((own[at] - taught[at]) ** 2).mean() for at in tokens())


def keys_of(batch, row, place):
    if "pack_ids" not in batch:
        return range(LENGTHS[row])
    packs = batch["pack_ids"][row]
    return [other for other in range(LENGTHS[row]) if packs[other] == packs[place]]


def scores_by_loop(batch, own, taught):
    total = 0
    for row, place in tokens():
        for key in keys_of(batch, row, place):
            total = total + ((own[row, :, place, key] - taught[row, :, place, key]) ** 2).mean()
    return total


def relations_by_loop(batch, heads, own, taught):
    """Sum over tokens of KL(teacher || student), the mean over relation heads."""
    total = 0
    for row, place in tokens():
        keys = list(keys_of(batch, row, place))
        for head in range(heads):
            rows = []
            for x in (own, taught):
                width = x.shape[-1] // heads
                part = x[row, :, head * width : (head + 1) * width]
                rows.append(torch.log_softmax(part[keys] @ part[place] / math.sqrt(width), 0))
            mine, theirs = rows
            total = total + (theirs.exp() * (theirs - mine)).sum() / heads
    return total


def soft_by_loop(own, taught):
    """T^2 KL of each row at T = 3, weighted."""
    total = 0
    for weight, a, b in zip(WEIGHTS, own, taught, strict=True):
        p = torch.softmax(b / 3, 0)
        total = total + weight * 9 * (p * (p.log() - torch.log_softmax(a / 3, 0))).sum()
    return total


def soft_binary_by_loop(own, taught):
    p, q = torch.sigmoid(taught / 3), torch.sigmoid(own / 3)
    each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return 9 * each.sum()


WEIGHTS = [1.0, 0.5, 0.0, 2.0]
MASK = is_token(BATCH)
CASES = {
    "cosine": (lambda a, b: terms.cosine_sum(a, b, MASK), cosine_by_loop, (3, 5, 6), (3, 5, 6)),
    "squares": (lambda a, b: terms.square_sum(a, b, MASK), square_by_loop, (3, 5, 6), (3, 5, 6)),
    "scores": (
        lambda a, b: terms.score_sum(a, b, terms.is_seen(BATCH)),
        partial(scores_by_loop, BATCH),
        (3, 2, 5, 5),
        (3, 2, 5, 5),
    ),
    "scores of packed rows": (
        lambda a, b: terms.score_sum(a, b, terms.is_seen(PACKED)),
        partial(scores_by_loop, PACKED),
        (3, 2, 5, 5),
        (3, 2, 5, 5),
    ),
    "relations of other widths, 3 heads": (
        lambda a, b: terms.relation_sum(a, b, 3, terms.is_seen(BATCH), MASK),
        partial(relations_by_loop, BATCH, 3),
        (3, 5, 6),
        (3, 5, 12),
    ),
    "relations of packed rows, 1 head": (
        lambda a, b: terms.relation_sum(a, b, 1, terms.is_seen(PACKED), MASK),
        partial(relations_by_loop, PACKED, 1),
        (3, 5, 6),
        (3, 5, 4),
    ),
    "soft targets": (
        lambda a, b: weighted_sum(soft_losses(a, b, 3.0), np.array(WEIGHTS)),
        soft_by_loop,
        (4, 7),
        (4, 7),
    ),
    "soft targets of sigmoids": (
        lambda a, b: soft_binary_losses(a, b, 3.0).sum(),
        soft_binary_by_loop,
        (4, 7),
        (4, 7),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_term_and_its_gradient_are_those_of_the_formula(case, largest):
    function, reference, own_shape, taught_shape = CASES[case]
    own, taught = normal(*own_shape), normal(*taught_shape, seed=1)
    value, gradient = jax.jit(jax.value_and_grad(function))(own, taught)
    expected_own = torch.tensor(own, dtype=torch.float64, requires_grad=True)
    expected = reference(expected_own, torch.tensor(taught, dtype=torch.float64))
    expected.backward()
    size = max(1.0, abs(float(expected.detach())))
    largest(f"distillation: {case}", abs(float(value) - float(expected.detach())) / size, 1e-5)
    difference = np.abs(gradient - expected_own.grad.numpy()).max()
    largest(f"distillation: gradient of {case}", difference, 1e-4)


def test_padding_changes_nothing_whatever_it_holds():
    own, taught = normal(3, 5, 6), normal(3, 5, 6, seed=1)
    other = np.where(np.asarray(MASK)[:, :, None] > 0, own, 1e4).astype(np.float32)
    seen = terms.is_seen(BATCH)
    for term in (
        lambda a: terms.cosine_sum(a, taught, MASK),
        lambda a: terms.square_sum(a, taught, MASK),
        lambda a: terms.relation_sum(a, taught, 2, seen, MASK),
    ):
        assert float(term(own)) == float(term(other))


def test_vectors_of_zeros_have_a_finite_cosine_and_gradient():
    zeros = np.zeros((3, 5, 6), np.float32)
    value, gradient = jax.value_and_grad(terms.cosine_sum)(zeros, normal(3, 5, 6), MASK)
    assert float(value) == sum(LENGTHS)
    assert np.isfinite(gradient).all()


def test_the_teacher_gets_no_gradient_from_soft_targets_and_relations():
    own, taught = normal(3, 5, 6), normal(3, 5, 6, seed=1)
    soft = jax.grad(lambda t: soft_losses(own, t, 2.0).sum())(taught)
    seen = terms.is_seen(BATCH)
    related = jax.grad(lambda t: terms.relation_sum(own, t, 2, seen, MASK))(taught)
    assert not soft.any()
    assert not related.any()
