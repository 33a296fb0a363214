"""BERT large with the paper's hyperparameters, phase 1: 900,000 steps at sequence length 128.

    bertjax prepare large --data.corpus tfds:wikipedia/20230601.en --output-dir prepared/base128
    bertjax train large --run-dir runs/large

340 million parameters, otherwise as `base`, whose prepared data it shares. The paper trained for
4 days on 16 Cloud TPUs (64 chips). Phase 2 is `large_phase2`.
"""

from bertjax.config import Config
from bertjax.presets import base


def get_config() -> Config:
    return base.get_config().replace(
        model={
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
    )
