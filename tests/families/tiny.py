"""A tiny model of each family, whose windows are shorter than its rows."""

import pytest

from bertjax.config import FAMILIES, family

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 66,
    # Weights of a size that makes outputs differ from place to place.
    "initializer_range": 0.2,
}
# It has windows and rotary positions. The others take minutes more.
QUICK = ("modernbert",)


def tiny(name, **fields):
    """A model of the family `name` with small sizes, and with these fields."""
    sizes = {**SIZES}
    if FAMILIES[name].get("local_attention"):
        sizes["local_attention"] = 8
    if FAMILIES[name].get("relative_positions"):
        # As many rows for each bucket as the family has: 2 b or 2 b - 1.
        sizes["relative_positions"] = 16 - FAMILIES[name]["relative_positions"] % 2
    for field in ("embedding_size", "mlm_hidden_size"):
        if FAMILIES[name].get(field):
            sizes[field] = 8
    return family(name, **{**sizes, **fields})


of_each_family = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in FAMILIES
        if name != "bert"
    ],
)
