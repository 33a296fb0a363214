"""Weights of a tiny GPT-BERT and its logits, computed by its authors' code."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.families.gpt_bert_torch import GptBertConfig

CONFIG = GptBertConfig(
    vocab_size=97,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=64,
    position_bucket_size=8,
)
"""Configuration of the model."""


class Goldens(NamedTuple):
    """Tensors by their names on disk, and outputs of rows of tokens; rows are axis 0."""

    tensors: dict[str, np.ndarray]
    input_ids_BxL: np.ndarray
    logits_BxLxV: np.ndarray
    causal_logits_BxLxV: np.ndarray


def gpt_bert_goldens() -> Goldens:
    """Read the goldens beside the checkout, or skip the test."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "families" / "gpt_bert"
    if not folder.exists():
        pytest.skip(f"no weights and logits of GPT-BERT at {folder}")
    golden = np.load(folder / "golden.npz")
    # On disk the first axis is time.
    return Goldens(
        dict(np.load(folder / "state_dict.npz")),
        golden["input_ids"].T,
        golden["logits"].swapaxes(0, 1),
        golden["logits_causal"].swapaxes(0, 1),
    )
