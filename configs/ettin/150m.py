"""Ettin 150m, the first of three phases: 1.7 trillion tokens at sequence length 1,024.

    bertjax prepare ettin/150m --data.corpus my/text --output-dir prepared/ettin
    bertjax train ettin/150m --run-dir runs/ettin_150m

150 million parameters, as `modernbert/base`, on open data (arXiv 2507.11412): web pages (DCLM),
code, papers, forums and books. 4 H100, 470 hours for all three phases. The order of the paper's
batches is published.

What differs here: AdamW with clipped gradients for StableAdamW; the batch, which grew in the first
50 billion tokens, has its full size from the start; and there are no later phases. The second:
250 billion tokens in rows of 7,999 with `model.rotary_base` 160,000, while the rate falls by half
as 1 - sqrt. The third: 50 billion, 15 % masked, while it falls to near 0.
"""

from bertjax.config import Config
from bertjax.presets.modernbert import base


def get_config() -> Config:
    return base.get_config().replace(
        data={"prepared_dir": "prepared/ettin"},
        # 3 and 1,700 billion tokens in batches of 4,608 rows of 1,024. The decay is that of a
        # step at the peak rate, as in `modernbert/base`.
        optimizer={"peak_learning_rate": 8e-4, "weight_decay": 1e-5 / 8e-4, "warmup_steps": 636},
        train={"steps": 360_277},
    )
