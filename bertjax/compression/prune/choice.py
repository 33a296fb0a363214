"""The choice of what is pruned: numbers from shares, and in each layer the least important ones."""

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
    check(
        0 <= share < 1,
        where=where,
        found=share,
        expected="a share to prune: 0 or more, and less than 1",
    )
    kept = min(round(total * (1 - share) / multiple) * multiple, total)
    check(
        kept > 0,
        where=where,
        found=f"{share:g} of {total:,}",
        expected="a share that leaves at least one",
    )
    return kept


def least_important_pruned(gradients: np.ndarray, kept: int, method: Method) -> np.ndarray:
    """Return which of M heads or units stay in each of N layers, ascending, int64 [N, kept].

    `gradients` [E, N, M] are those of the examples with respect to the masks. With `fisher`, pruned
    ones are then exchanged for kept ones while this makes the loss of all of them together smaller
    (`exchanged`). Of equally important ones the first stay.
    """
    by_layer = importance(gradients, method)
    chosen = []
    for layer, values in enumerate(by_layer):
        order = np.argsort(-values, kind="stable")
        stays = np.zeros(len(values), bool)
        stays[order[:kept]] = True
        if method == "fisher":
            stays = exchanged(gradients[:, layer], stays)
        chosen.append(np.flatnonzero(stays))
    return np.stack(chosen)


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
    check(
        0 <= share < 1,
        where="--flops",
        found=share,
        expected="a share to prune: 0 or more, and less than 1",
    )
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


def _sums_of_least(importance_NxM: np.ndarray) -> np.ndarray:
    """Return the importance of the 0, 1, ..., M least important ones of all layers, [M + 1]."""
    ascending = np.sort(importance_NxM, axis=1).sum(axis=0)
    return np.concatenate([[0.0], np.cumsum(ascending)])
