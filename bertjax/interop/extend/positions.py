"""Longer inputs: more learned positions, or the formula of the others for more of them."""

import dataclasses
from typing import Literal, get_args

import numpy as np

from bertjax.config import ModelConfig
from bertjax.errors import check
from bertjax.interop.extend.leaves import leaf_of, replace_leaf
from bertjax.model.attention.relative_attention import nearest_distances
from bertjax.model.functional import Params

PositionMethod = Literal["auto", "tile", "interpolate", "keep", "scale"]

MAX_POSITIONS = 1 << 20  # attention over this many needs terabytes
POSITION_TABLE = ("embeddings", "position", "embedding")
# For each value of `model.positions`: the methods that it has, and first the one that `auto` takes.
METHODS: dict[str, tuple[PositionMethod, ...]] = {
    "learned": ("tile", "interpolate"),
    "rotary": ("keep", "scale"),
    "sinusoidal": ("keep",),
    "none": ("keep",),
}


def extend_positions(
    config: ModelConfig, params: Params, length: int, method: PositionMethod = "auto"
) -> tuple[ModelConfig, Params]:
    """Return the model with positions for up to `length` ids.

    For learned positions `tile`, which `auto` takes, repeats them in order, as Longformer does
    (arXiv 2004.05150, section 5). `interpolate` stretches them, as ViT does for images of higher
    resolution (arXiv 2010.11929, section 3.2): the first and the last stay first and last, and
    every other one lies linearly between two learned neighbours. The table's entries below
    `config.position_offset` are not positions and stay as they are.

    For all other positions `keep`, which `auto` takes, is the formula that the model has, at
    positions that it has not seen. `scale` divides rotary positions by the factor by which the
    length grows, in all layers (arXiv 2306.15595).

    After `tile` and `keep` the outputs for inputs no longer than before stay the same to the bit;
    `interpolate` and `scale` change those for every input. Windows of local attention stay as they
    are, and so do the buckets of relative positions where inputs had far distances, which share
    them. Raises `UserError` if `length` is not above `config.max_length`, and for a method that
    such positions do not have.
    """
    _check_length(config, length)
    chosen = method_for(config, method)
    extended = dataclasses.replace(
        config,
        max_position_embeddings=config.position_offset + length,
        relative_max_distance=_furthest(config, length) if config.relative_positions else 0,
    )
    if chosen == "scale":
        factor = length / config.max_length
        extended = dataclasses.replace(extended, rotary_scaling=config.rotary_scaling * factor)
    if chosen in ("keep", "scale"):
        return extended, params
    table_PxE = leaf_of(params, POSITION_TABLE)
    offset = config.position_offset
    learned_LxE = table_PxE[offset:]
    if chosen == "tile":
        positions = learned_LxE[np.arange(length) % len(learned_LxE)]
    else:
        positions = _interpolate(learned_LxE, length)
    table = np.concatenate([table_PxE[:offset], positions])
    return extended, replace_leaf(params, POSITION_TABLE, table)


def method_for(config: ModelConfig, method: PositionMethod) -> PositionMethod:
    """Return the method that `method` is for the model's positions; `UserError` if it is none."""
    names = get_args(PositionMethod)
    check(method in names, where="positions", found=method, expected=f"one of {', '.join(names)}")
    methods = METHODS[config.positions]
    chosen = methods[0] if method == "auto" else method
    check(
        chosen in methods,
        where="positions",
        found=chosen,
        expected=f"{' or '.join(methods)}, for model.positions {config.positions}",
    )
    return chosen


def change_rotary_bases(
    config: ModelConfig, in_global: float = 0.0, in_local: float = 0.0
) -> ModelConfig:
    """Return the configuration with another base of the rotary angles in global or local layers.

    0 leaves a base as it is. A larger base turns pairs more slowly, so that more positions differ
    (arXiv 2309.16039, section 2); the outputs of every input change, until the model is trained
    further. Raises `UserError` for a model without rotary positions, or without global or local
    layers where their base is given.
    """
    check(
        config.positions == "rotary",
        where="rotary base",
        found=f"a model with model.positions {config.positions}",
        expected="rotary",
    )
    for name, base in (("rotary base", in_global), ("rotary base of local layers", in_local)):
        check(base >= 0, where=name, found=base, expected="a number above 0")
    has_local = not all(config.attends_globally)
    check(
        has_local or not in_local,
        where="rotary base of local layers",
        found=in_local,
        expected="none, for a model without local attention",
    )
    check(
        any(config.attends_globally) or not in_global,
        where="rotary base",
        found=in_global,
        expected="none, for a model whose layers are all local: they have a base of their own",
    )
    # In the configuration 0 is the base of global layers. The windows of local layers see no new
    # distances, so their base stays (arXiv 2412.13663, section 2.1.3).
    before = config.rotary_base_local or (config.rotary_base if has_local else 0.0)
    return dataclasses.replace(
        config,
        rotary_base=in_global or config.rotary_base,
        rotary_base_local=in_local or before,
    )


def _furthest(config: ModelConfig, length: int) -> int:
    """Return `relative_max_distance` with which the distances of before keep their buckets."""
    # 0 stands for the number of positions, which is another one from now on.
    furthest = config.relative_max_distance or config.max_position_embeddings
    nearest = nearest_distances(config)
    had_far = config.max_length - 1 > nearest
    if not had_far and furthest - 1 <= nearest:
        # All distances had buckets of their own, and up to here no formula gives far ones a bucket.
        return config.position_offset + length
    return furthest


def _check_length(config: ModelConfig, length: int) -> None:
    check(
        length <= MAX_POSITIONS,
        where="length",
        found=str(length)[:20],
        expected=f"at most {MAX_POSITIONS}",
    )
    check(
        length > config.max_length,
        where="length",
        found=length,
        expected=f"more than {config.max_length}, which the model's positions allow already",
    )


def _interpolate(learned_LxE: np.ndarray, length: int) -> np.ndarray:
    last = len(learned_LxE) - 1
    # Integers are exact: a new position that falls on a learned one then equals it to the bit.
    below, rest = np.divmod(np.arange(length) * last, length - 1)
    share = (rest / (length - 1)).astype(np.float32)[:, None]
    above = np.minimum(below + 1, last)
    return learned_LxE[below] * (1 - share) + learned_LxE[above] * share
