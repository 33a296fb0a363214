"""The choice of what is pruned: numbers from shares, and in each layer the least important ones."""

from collections.abc import Sequence

import numpy as np

from bertjax.compression.prune.importance import Method, importance
from bertjax.errors import check, mismatch

# Rounds of swaps; in practice the second finds little (a few swaps in a layer of 3,072 units).
ROUNDS = 3


def kept_count(total: int, share: float, where: str, multiple: int = 1) -> int:
    """Return how many of `total` stay if a `share` is pruned, rounded to a multiple.

    Raises `UserError` for a share that is not in 0..1, and if none would stay.

    >>> kept_count(12, 0.3, "--heads"), kept_count(3072, 0.3, "--mlp", 128)
    (8, 2176)
    """
    check_share(share, where)
    kept = min(round(total * (1 - share) / multiple) * multiple, total)
    check(
        kept > 0,
        where=where,
        found=f"{share:g} of {total:,}",
        expected="a share that leaves at least one",
    )
    return kept


def most_important(
    gradients: np.ndarray, counts: Sequence[int] | np.ndarray, method: Method
) -> list[np.ndarray]:
    """Return which of M heads or units stay in each of N layers: ascending, int64 [counts[layer]].

    `gradients` [E, N, M] are those of the examples with respect to the masks. With `fisher`, pruned
    ones are then exchanged for kept ones while this makes the loss of all of them together smaller
    (`exchanged`). Of equally important ones the first stay.
    """
    by_layer = importance(gradients, method)
    chosen = []
    for layer, (values, kept) in enumerate(zip(by_layer, counts, strict=True)):
        order = np.argsort(-values, kind="stable")
        stays = np.zeros(len(values), bool)
        stays[order[:kept]] = True
        if method == "fisher":
            stays = exchanged(gradients[:, layer], stays)
        chosen.append(np.flatnonzero(stays))
    return chosen


def exchanged(gradients_ExM: np.ndarray, stays: np.ndarray) -> np.ndarray:
    """Return which stay after exchanges that make the estimated loss smaller, bool [M].

    The estimate for a set of pruned ones is the mean over the examples of the square of the sum of
    their gradients: the Fisher information of a whole layer and not only its diagonal (arXiv
    2204.09656, section 4.2). Two that say the same are not both pruned.
    """
    gradients, stays = gradients_ExM.astype(np.float64), stays.copy()
    squares = np.sum(np.square(gradients), axis=0)
    total = gradients[:, ~stays].sum(axis=1)
    for _ in range(ROUNDS):
        changed = False
        for out in np.flatnonzero(~stays):
            rest = total - gradients[:, out]
            # Beside a constant: |rest + gradient|^2 for each that might be pruned instead.
            losses = 2 * rest @ gradients + squares
            losses[~stays] = np.inf
            best = int(np.argmin(losses))
            own = 2 * rest @ gradients[:, out] + squares[out]
            # A gain of rounding errors alone would exchange equal ones forever.
            if losses[best] < own - 1e-9 * abs(own):
                stays[out], stays[best] = True, False
                total = rest + gradients[:, best]
                changed = True
        if not changed:
            break
    return stays


def counts_within(
    heads_NxG: np.ndarray, units_NxF: np.ndarray, costs: tuple[float, float], share: float
) -> tuple[int, int]:
    """Return how many heads and units of each layer stay if a `share` of their cost is pruned.

    Of all numbers that leave no more than the rest of the cost, those whose pruned heads and units
    have the smallest sum of importance (arXiv 2204.09656, algorithm 1, for layers that are alike).
    `costs` are those of one head and of one unit. Raises `UserError` for a share not in 0..1, and
    if it leaves no head and no unit.
    """
    groups, units = heads_NxG.shape[1], units_NxF.shape[1]
    check_share(share, "--flops")
    budget = (1 - share) * (groups * costs[0] + units * costs[1])
    lost_heads, lost_units = _sums_of_least(heads_NxG), _sums_of_least(units_NxF)
    best: tuple[float, int, int] | None = None
    for kept in range(1, groups + 1):
        left = min(units, int((budget - kept * costs[0]) / costs[1]))
        if left < 1:
            continue
        lost = lost_heads[groups - kept] + lost_units[units - left]
        if best is None or lost < best[0]:
            best = float(lost), kept, left
    if best is None:
        raise mismatch(
            where="--flops",
            found=f"{share:g}",
            expected="a share that leaves a head and a unit in each layer",
        )
    return best[1], best[2]


def counts_by_layer(importance_NxM: np.ndarray, share: float, where: str) -> np.ndarray:
    """Return how many of each layer stay if a `share` of those of all layers is pruned, int64 [N].

    The most important ones of all stay, and the most important one of each layer, without which no
    layer would be left. Raises the errors of `kept_count`.

    >>> counts_by_layer(np.array([[4.0, 3.0], [2.0, 1.0]]), 0.25, "--heads")
    array([2, 1])
    """
    layers, parts = importance_NxM.shape
    ranks = _by_rank(importance_NxM)
    count = max(kept_count(layers * parts, share, where), layers)
    kept = np.sort(ranks, axis=None, kind="stable")[count - 1]
    return np.asarray((ranks <= kept).sum(axis=1))


def _by_rank(worth_NxM: np.ndarray) -> np.ndarray:
    """Return the rank of each, from 0; the first of each layer comes before all others."""
    worth = worth_NxM.astype(np.float64)
    best = worth.argmax(axis=1)
    worth[np.arange(len(worth)), best] = np.inf
    order = np.argsort(-worth, axis=None, kind="stable")
    ranks = np.empty(worth.size, np.int64)
    ranks[order] = np.arange(worth.size)
    return ranks.reshape(worth.shape)


def counts_by_layer_within(
    heads_NxG: np.ndarray, units_NxF: np.ndarray, costs: tuple[float, float], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many heads and units of each layer stay if a `share` of their cost is pruned.

    Those stay that are the most important for their cost, of all layers, as far as the rest of the
    cost goes; one of each kind in each layer stays anyway. `costs` are those of one head and of one
    unit. The results are int64 [N]. Raises `UserError` for a share that leaves less than these.
    """
    check_share(share, "--flops")
    layers, groups = heads_NxG.shape
    units = units_NxF.shape[1]
    budget = (1 - share) * layers * (groups * costs[0] + units * costs[1])
    check(
        layers * (costs[0] + costs[1]) <= budget,
        where="--flops",
        found=f"{share:g}",
        expected="a share that leaves a head and a unit in each layer",
    )
    worth = np.concatenate([heads_NxG / costs[0], units_NxF / costs[1]], axis=1)
    # One of each kind and layer comes first.
    first = np.concatenate([_by_rank(heads_NxG) < layers, _by_rank(units_NxF) < layers], axis=1)
    order = np.argsort(-np.where(first, np.inf, worth), axis=None, kind="stable")
    cost = np.tile(np.repeat(costs, (groups, units)), (layers, 1)).reshape(-1)
    stays = np.zeros(worth.size, bool)
    # Rounded sums may exceed a share of 0 by a little.
    stays[order[np.cumsum(cost[order]) <= budget * (1 + 1e-9)]] = True
    kept = stays.reshape(worth.shape)
    return kept[:, :groups].sum(axis=1), kept[:, groups:].sum(axis=1)


def check_share(share: float, where: str) -> None:
    """Raise `UserError` for a share to prune that is not in 0..1."""
    check(
        0 <= share < 1,
        where=where,
        found=share,
        expected="a share to prune: 0 or more, and less than 1",
    )


def _sums_of_least(importance_NxM: np.ndarray) -> np.ndarray:
    """Return the importance of the 0, 1, ..., M least important ones of all layers, [M + 1]."""
    ascending = np.sort(importance_NxM, axis=1).sum(axis=0)
    return np.concatenate([[0.0], np.cumsum(ascending)])
