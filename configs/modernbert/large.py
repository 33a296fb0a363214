r"""ModernBERT large, the first of three phases: 1.719 trillion tokens at sequence length 1,024.

    bertjax grow runs/modernbert_base --to runs/modernbert_wide --hidden-size 1024 \
        --num-hidden-layers 28 --intermediate-size 2624
    bertjax train modernbert/large --init-from runs/modernbert_wide --run-dir runs/modernbert_large

396 million parameters (arXiv 2412.13663), with the text and the data settings of `modernbert/base`;
8 H100, 425 hours. Its first parameters are those of the trained base model, tiled from the middle
of each matrix, which `grow` does; without `--init-from` they are random. The paper's learning rate,
5e-4, was lowered to 5e-5 after 900 billion tokens, because the loss did not fall any more, and with
it the weight decay of a step, from 1e-5 to 1e-6. The later phases have learning rate 5e-5 and
batches of 616 and 624 rows (81 and 22 hours).

What differs here, beside what `modernbert/base` names: the batch, which grew from 448 rows in the
first 10 billion tokens, has its full size from the start.
"""

from bertjax.config import Config
from bertjax.presets.modernbert import base


def get_config() -> Config:
    return base.get_config().replace(
        model={
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "intermediate_size": 2624,
        },
        # 2, 900 and 1,719 billion tokens in batches of 4,928 rows of 1,024.
        optimizer={
            "peak_learning_rate": 5e-4,
            "weight_decay": 1e-5 / 5e-4,
            "warmup_steps": 396,
            "schedule": "multistep",
            "milestones": (178_350,),
            "decay_factor": 0.1,
        },
        train={"steps": 340_648, "batch_size": 4928},
    )
