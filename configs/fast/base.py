"""BERT base, phase 1, as fast as a TPU goes: `../base.py` with our kernels and no dropout of
attention probabilities.

    bertjax train configs/fast/base.py --run-dir runs/base
    bertjax compile configs/fast/base.py --topology v5e:2x2 --train.batch-size 512

What differs from the paper: no dropout of attention probabilities; GELU by its tanh formula, as in
the original code; dropout's bits from a hash (`model.dropout_bits`). The paper's dropout in the
same kernels: --model.attention-probs-dropout-prob 0.1. The other files of this folder do the same
to theirs.

The layers are written out, not a loop, which would copy what each keeps for the backward pass: the
step takes an eighth less, the first compilation minutes more. Shorter: --model.scan-unroll 1.
"""

import dataclasses
from pathlib import Path

from bertjax.config import Config, Remat, load_config


def fast(name: str, remat: Remat) -> Config:
    """The configuration file `../name`, made fast, keeping of a layer what `remat` says."""
    paper = load_config(str(Path(__file__).parents[1] / name))
    model = dataclasses.replace(
        paper.model,
        hidden_act="gelu_tanh",
        attention_probs_dropout_prob=0.0,
        kernels="pallas",
        dropout_bits="hash",
        remat=remat,
        scan_unroll=paper.model.num_hidden_layers,
    )
    return dataclasses.replace(paper, model=model)


def get_config() -> Config:
    return fast("base.py", "dots")
