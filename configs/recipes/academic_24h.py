"""BERT large for an academic budget: 24 hours on one server of 8 small GPUs.

    bertjax prepare recipes/academic_24h --data.corpus my/text
    bertjax train recipes/academic_24h --run-dir runs/academic_24h

Source: arXiv 2104.07705, and the authors' repository, whose best configuration this is. BERT large
with norms before its sublayers (336 million parameters), rows of 128 tokens of one text, no
sentence pairs, batches of 4,096 rows, a rate of 1e-3 with a warmup of 6 %, gradients not clipped.
Wikipedia and BooksCorpus.

The schedule follows the time: on any hardware the run ends after a day of training, which is saved
with it (`--train.budget 12h` for another time).

Hardware and time: 8 Titan V GPUs of 12 GB, 24 hours. Published figures: GLUE test: MNLI 84.4 and
83.8, QNLI 90.6, SST-2 93.0, CoLA 57.1.
"""

from bertjax.config import Config
from bertjax.presets import base


def get_config() -> Config:
    return base.get_config().replace(
        data={
            "prepared_dir": "prepared/academic_24h",
            "sentence_objective": "none",
            # Ten masked copies of each text.
            "dupe_factor": 10,
            "validation_fraction": 0.005,
        },
        model={
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "norm_place": "before",
            "final_norm": True,
            "heads": ("mlm",),
        },
        optimizer={
            "peak_learning_rate": 1e-3,
            # 6 % of the time.
            "warmup_steps": 60_000,
            "b2": 0.98,
            "eps": 1e-6,
            "weight_decay": 0.01,
            "max_grad_norm": 0.0,
        },
        # The schedule is gone through in the time; a million steps only bound it.
        train={"budget": "24h", "steps": 1_000_000, "batch_size": 4096},
    )
