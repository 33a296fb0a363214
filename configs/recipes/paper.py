"""BERT base as in its paper: both phases in one run, a million steps.

    bertjax prepare recipes/paper --data.corpus tfds:wikipedia/20230601.en
    bertjax train recipes/paper --run-dir runs/paper

Source: arXiv 1810.04805, section 3.1 and appendix A.2. 110 million parameters, Wikipedia and
BooksCorpus (3.3 billion words). 900,000 steps of 256 rows of 128 tokens, then 100,000 of 512
tokens; one learning rate falls over both.

Hardware and time: 4 days on 4 Cloud TPUs (16 chips). Published figures: GLUE test 79.6 on average,
MNLI 84.6 and 83.4 (table 1).

What differs here: `base` and `base_phase2` are the same as two runs, the second of which begins
with new moments and a warmup.
"""

from bertjax.config import Config
from bertjax.presets import base


def get_config() -> Config:
    return base.get_config().replace(
        data={"prepared_dir": "prepared/paper128"},
        train={"steps": 1_000_000},
        phases=(
            "steps=900000",
            # 0.15 * 512, rounded up.
            "steps=100000 data.prepared_dir=prepared/paper512 data.max_seq_length=512"
            " data.max_predictions_per_seq=77",
        ),
    )
