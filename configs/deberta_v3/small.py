"""DeBERTa-v3 small: `deberta_v3/base` with half the layers.

    bertjax prepare deberta_v3/base --data.corpus my/text --output-dir prepared/deberta_v3
    bertjax train deberta_v3/small --run-dir runs/deberta_v3_small

142 million parameters, of which 98 million are word embeddings (arXiv 2111.09543). There is no
published script that trains this size from random parameters, so learning rate, batch size and
steps are those of base.
"""

from bertjax.config import Config
from bertjax.presets.deberta_v3 import base


def get_config() -> Config:
    return base.get_config().replace(
        model={"num_hidden_layers": 6},
    )
