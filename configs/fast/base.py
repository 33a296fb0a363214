"""BERT base, phase 1, made fast on TPUs: `base` with our kernels.

    bertjax train fast/base --run-dir runs/base
    bertjax compile fast/base --topology v5e:2x2 --train.batch-size 512

Three things differ from the paper: no dropout of the attention probabilities; GELU by its tanh
approximation, as in the original code; dropout's random bits from a hash (`model.dropout_bits`).
The paper's dropout in the same kernels: `--model.attention-probs-dropout-prob 0.1`. The other
presets of this folder change the same settings.

The layers are written out instead of a loop, which would copy what each layer keeps for the
backward pass. This makes a step shorter by an eighth, and the first compilation longer by minutes;
`--model.scan-unroll 1` takes the loop.
"""

from bertjax.config import Config, Remat
from bertjax.presets import base


def fast(paper: Config, remat: Remat) -> Config:
    """Return the configuration with the fast settings, and `remat` as what is computed again."""
    return paper.replace(
        model={
            "hidden_act": "gelu_tanh",
            "attention_probs_dropout_prob": 0.0,
            "kernels": "pallas",
            "dropout_bits": "hash",
            "remat": remat,
            "scan_unroll": paper.model.num_hidden_layers,
        }
    )


def get_config() -> Config:
    return fast(base.get_config(), "dots")
