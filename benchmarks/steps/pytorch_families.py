"""The families' models in PyTorch, for `pytorch_step.py`: masked words only."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
)

Tensors = dict[str, Tensor]
PADDING = {"pad_token_id": 0}  # the default of some is beyond this vocabulary


def modernbert(sizes: dict[str, Any]) -> nn.Module:
    # bertjax's model has no dropout here either: that of this class is also on the probabilities.
    config = ModernBertConfig(**sizes, **PADDING, attn_implementation="sdpa")
    return ModernBertForMaskedLM(config)


def deberta(sizes: dict[str, Any]) -> nn.Module:
    # The fields in which version 3 differs from the defaults, and the head that has its weights.
    config = DebertaV2Config(
        **sizes,
        **PADDING,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        legacy=False,
    )
    return DebertaV2ForMaskedLM(config)


def neobert(sizes: dict[str, Any]) -> nn.Module:
    # `transformers` has no class for it; this is the one that the tests compare with.
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.families.neobert_torch import NeoBert, NeoBertConfig

    # Its configuration has the width before a third of it is taken away for the gate.
    width = 4 * sizes["hidden_size"]
    config = NeoBertConfig(**sizes | {"intermediate_size": width})
    assert config.gated_size == sizes["intermediate_size"]
    return NeoBert(config)


MODELS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "modernbert": modernbert,
    "deberta-v2": deberta,
    "neobert": neobert,
}


def loss_of(model: nn.Module, tensors: Tensors) -> Tensor:
    """Return the mean cross-entropy of the masked words, whichever of the models it is."""
    if isinstance(model, PreTrainedModel):
        names = ("input_ids", "attention_mask", "labels")
        return model(**{name: tensors[name] for name in names}).loss
    logits = model(tensors["input_ids"]).logits_BxLxV
    return functional.cross_entropy(logits.flatten(0, 1), tensors["labels"].flatten())
