"""What the decoder's layers can be composed of: they are those of BERT, with cross-attention."""

from typing import Any

from bertjax.config import ModelConfig
from bertjax.errors import check

SAME_FOR_ALL: dict[str, Any] = {
    "relative_positions": 0,
    "num_key_value_heads": 0,
    "value_gate": False,
    "norm_place": "after",
    "norm_inside": False,
    "layer_mix": False,
}
"""Fields of `ModelConfig` that the decoder has no other way of, and their values."""
# The positions that the embeddings add. Rotary ones turn queries and keys instead.
ADDED_POSITIONS = ("learned", "sinusoidal")
WHY = "for a task of kind seq2seq: its decoder has BERT's layers"


def check_composition(config: ModelConfig) -> None:
    """Raise `UserError` for the first field of an encoder that a decoder of its sizes cannot have.

    The decoder has its size, its embeddings, its feed-forward sublayer and its kind of norm. It has
    global attention also where the encoder's is local.
    """
    check(
        config.positions in ADDED_POSITIONS,
        where="model.positions",
        found=config.positions,
        expected=f"{' or '.join(ADDED_POSITIONS)}, {WHY}",
    )
    for field, value in SAME_FOR_ALL.items():
        found = getattr(config, field)
        check(found == value, where=f"model.{field}", found=found, expected=f"{value}, {WHY}")
    check(
        "attention" in config.biases,
        where="model.biases",
        found=", ".join(config.biases) or "none",
        expected=f"attention among them, {WHY}",
    )
