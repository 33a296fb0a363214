"""Ettin 32m, the first of three phases: 1.7 trillion tokens at sequence length 1,024.

    bertjax prepare ettin/32m --data.corpus my/text --output-dir prepared/ettin
    bertjax train ettin/32m --run-dir runs/ettin_32m

32 million parameters, as `modernbert/base` but smaller, on open data (arXiv 2507.11412): web pages
(DCLM), code, papers, forums and books. 4 H100, 212 hours for all three phases. The order of the
paper's batches is published.

What differs here: AdamW with clipped gradients for StableAdamW; the batch, which grew in the first
100 billion tokens, has its full size from the start; and there are no later phases. The second:
250 billion tokens in rows of 7,999 with `model.rotary_base` 160,000, while the rate falls by half
as 1 - sqrt. The third: 50 billion, 15 % masked, while it falls to near 0.
"""

from bertjax.config import Config
from bertjax.presets.modernbert import base


def get_config() -> Config:
    return base.get_config().replace(
        data={"prepared_dir": "prepared/ettin"},
        model={
            "hidden_size": 384,
            "num_hidden_layers": 10,
            "num_attention_heads": 6,
            "intermediate_size": 576,
        },
        # 4 and 1,700 billion tokens in batches of 4,608 rows of 1,024. The decay is that of a
        # step at the peak rate, as in `modernbert/base`.
        optimizer={"peak_learning_rate": 3e-3, "weight_decay": 3e-4 / 3e-3, "warmup_steps": 848},
        train={"steps": 360_277},
    )
