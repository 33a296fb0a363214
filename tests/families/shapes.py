"""Tiny models of the families, with everything that they are composed of, and packed rows."""

import jax
import numpy as np

import bertjax
from bertjax.config import ModelConfig, family

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
}
CHANGES = {
    # Seven layers: the pattern of three twice, and one layer after it.
    "modernbert": {"num_hidden_layers": 7, "local_attention": 4, "rotary_base_local": 100.0},
    "deberta-v2": {"num_hidden_layers": 3, "relative_positions": 16},
    "gpt_bert": {"num_hidden_layers": 2, "relative_positions": 15},
    "neobert": {"num_hidden_layers": 3},
    "eurobert": {"num_hidden_layers": 3, "num_key_value_heads": 1},
}
NAMES = list(CHANGES)
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ALONE = 6  # tokens of the longest input


def shape_of(name: str, **changes: object) -> ModelConfig:
    """Return a tiny model of the family; without dropout, unless `changes` say otherwise."""
    return family(name, **SIZES | CHANGES[name] | WITHOUT_DROPOUT | changes)


def parameters(config: ModelConfig, seed: int = 0) -> dict:
    """Return parameters with noise, so that no norm and no bias has its initial value."""
    params = bertjax.init(config, jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, noisy)


def one_input_a_row(seed: int, count: int) -> dict[str, np.ndarray]:
    """Return `count` inputs of different lengths, each in a row with padding after it."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, ALONE + 1, count)
    mask = np.arange(ALONE)[None, :] < lengths[:, None]
    # One or two masked tokens; the second only where the input has as many.
    first = rng.integers(0, lengths)
    positions = np.stack([first, (first + 1) % lengths], axis=1)
    weights = np.stack([np.ones(count), rng.integers(0, 2, count)], axis=1)
    return {
        "input_ids": (rng.integers(5, 64, mask.shape) * mask).astype(np.int32),
        "input_mask": mask.astype(np.int32),
        "masked_lm_positions": positions.astype(np.int32),
        "masked_lm_ids": rng.integers(5, 64, positions.shape).astype(np.int32),
        "masked_lm_weights": weights.astype(np.float32),
    }


def packed(alone: dict[str, np.ndarray], rows: int, length: int = 16) -> dict[str, np.ndarray]:
    """Return the inputs of `one_input_a_row` in `rows` packed rows, of two inputs at least each.

    As in prepared rows, `position_ids` begin again with each input. `places` has the row and the
    first position of each input.
    """
    shape = (rows, length)
    names = ("input_ids", "input_mask", "pack_ids", "position_ids")
    batch = {name: np.zeros(shape, np.int32) for name in names}
    places, masked = [], {name: [[] for _ in range(rows)] for name in alone if "masked" in name}
    ends, counts = np.zeros(rows, int), np.zeros(rows, int)
    for index, size in enumerate(alone["input_mask"].sum(axis=1)):
        row = index % rows
        first, last = ends[row], ends[row] + size
        assert last <= length
        ends[row], counts[row] = last, counts[row] + 1
        places.append((row, first))
        batch["input_ids"][row, first:last] = alone["input_ids"][index, :size]
        batch["input_mask"][row, first:last] = 1
        batch["pack_ids"][row, first:last] = counts[row]
        batch["position_ids"][row, first:last] = np.arange(size)
        for name, values in masked.items():
            shift = first if name == "masked_lm_positions" else 0
            values[row].extend(alone[name][index] + shift)
    for name, values in masked.items():
        batch[name] = np.array(values, alone[name].dtype)
    return batch | {"places": np.array(places)}


def packed_batch(seed: int, rows: int) -> dict[str, np.ndarray]:
    """Return `rows` packed rows with two inputs each; half of them have no more than one mask."""
    batch = packed(one_input_a_row(seed, 2 * rows), rows)
    del batch["places"]
    batch["masked_lm_weights"][: rows // 2, 1:] = 0
    return batch
