"""BERT base, phase 1, as fast as a TPU goes: `../base.py` with our kernels and no dropout of attention probabilities.

    bertjax train configs/fast/base.py --run-dir runs/base
    bertjax compile configs/fast/base.py --topology v5e:2x2

What differs from the paper: no dropout of attention probabilities, which costs time even inside the kernel; GELU
by its tanh formula, as the original code has it; and dropout's bits from a hash (`model.dropout_bits`). For the
paper's dropout in the same kernels: --model.attention-probs-dropout-prob 0.1. Batch 512, 128 rows a chip of
v5e:2x2: half the paper's steps for the same number of rows, so twice the learning rate, by the linear rule.
"""

import dataclasses

from bertjax.config import Config, load_config


def get_config() -> Config:
    paper = load_config(str(__file__).replace("/fast/", "/"))
    return dataclasses.replace(
        paper,
        model=dataclasses.replace(
            paper.model,
            hidden_act="gelu_tanh",
            attention_probs_dropout_prob=0.0,
            kernels="pallas",
            dropout_bits="hash",
            remat="heads",
        ),
        optimizer=dataclasses.replace(paper.optimizer, peak_learning_rate=2e-4, warmup_steps=5_000),
        train=dataclasses.replace(paper.train, batch_size=512, steps=450_000),
    )
