"""ModernBERT base, all three phases in one run: 2.019 trillion tokens.

    bertjax prepare recipes/modernbert --data.corpus my/text
    bertjax train recipes/modernbert --run-dir runs/modernbert

Source: arXiv 2412.13663, sections 2.2 and 3, and the authors' training files. 150 million
parameters; English web pages, code and scientific text, whose list was not published.

1. 1.719 trillion tokens in rows of 1,024. The batch grows to 4,608 rows in the first 50 billion,
   and the learning rate rises to 8e-4 in the first 3 billion.
2. 250 billion tokens in rows of 8,192, at 3e-4; the base of the rotary angles of global layers
   rises from 10,000 to 160,000.
3. 50 billion tokens, while the rate falls to 0.1 % of it as 1 - sqrt.

Hardware and time: 8 H100, 194, 40 and 12 hours. Published figures: GLUE 88.4 on average on the
development sets; the model is the mean of the last checkpoint and the three best ones before it
(`bertjax average`).

What differs here:

- The batch grows from 576 rows by doubling; the authors' grew from 768, linearly.
- Held-out rows have 30 % masks, as those for training; the paper evaluates with 15 %.
- All phases read one text. The paper has better text in the last two: give them another corpus with
  `bertjax prepare recipes/modernbert --phase 2 --data.corpus my/better`, before the first command.
"""

from bertjax.config import Config
from bertjax.presets.modernbert import base


def get_config() -> Config:
    return base.get_config().replace(
        # It clips its updates itself, so gradients are not clipped.
        optimizer={
            "algorithm": "stable_adamw",
            "max_grad_norm": 0.0,
            "warmup_tokens": 3_000_000_000,
        },
        train={
            "steps": 2_978_008,
            "batch_size": 576,
            "batch_size_schedule": "ramp",
            "max_batch_size": 4608,
            "batch_size_tokens": 50_000_000_000,
        },
        phases=(
            "tokens=1719B",
            # 0.3 * 8192, rounded up. The paper's weight decay, 1e-5, is that of a step at the
            # phase's highest rate; ours is multiplied by the rate.
            "tokens=250B data.prepared_dir=prepared/modernbert8192 data.max_seq_length=8192"
            " data.max_predictions_per_seq=2458 model.rotary_base=160000"
            f" optimizer.peak_learning_rate=3e-4 optimizer.weight_decay={1e-5 / 3e-4}"
            " train.batch_size=576 train.batch_size_schedule=constant",
            "tokens=50B optimizer.schedule=sqrt optimizer.end_learning_rate=3e-7",
        ),
    )
