"""DeBERTa-v3 xsmall: `deberta_v3/base` with half the width.

    bertjax prepare deberta_v3/base --data.corpus my/text --output-dir prepared/deberta_v3
    bertjax train deberta_v3/xsmall --run-dir runs/deberta_v3_xsmall

71 million parameters, of which 49 million are word embeddings (arXiv 2111.09543). Learning rate
and batch size are those of the published script for this size.
"""

from bertjax.config import Config
from bertjax.presets.deberta_v3 import base


def get_config() -> Config:
    return base.get_config().replace(
        model={"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
        optimizer={"peak_learning_rate": 3e-4},
        train={"batch_size": 64},
    )
