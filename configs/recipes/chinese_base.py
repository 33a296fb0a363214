"""Chinese BERT base with whole-word masking: both lengths in one run.

    pip install 'bertjax[chinese]'
    bertjax prepare recipes/chinese_base --data.corpus my/zh.txt
    bertjax train recipes/chinese_base --run-dir runs/chinese_base

Source: arXiv 1906.08101 (BERT-wwm), and the table in the authors' repository. BERT base with the
vocabulary size of Google's Chinese BERT, 21,128; Chinese Wikipedia, 0.4 billion tokens. 100,000
steps of 2,560 rows of 128 tokens, then 100,000 of 384 rows of 512 tokens, with LAMB; all characters
of a word are masked together.

Hardware and time: a TPU v3; hours were not published. Published figures on the development sets,
the best of ten runs: CMRC 2018 exact match 66.3, F1 85.6; XNLI 79.0.

What differs here:

- The parameters are new; the authors' began with those of Google's Chinese BERT
  (`--init-from` and an imported model).
- Words are found by jieba, in the paper by LTP.
- The learning rate is BERT's, 1e-4 after 10,000 steps, and falls over both phases.
"""

from bertjax.config import Config
from bertjax.presets import base


def get_config() -> Config:
    return base.get_config().replace(
        tokenizer={"vocab_size": 21_128},
        data={
            "prepared_dir": "prepared/chinese128",
            "masking": "whole_word",
            "word_segmenter": "jieba",
        },
        model={"vocab_size": 21_128},
        optimizer={"algorithm": "lamb"},
        train={"steps": 200_000, "batch_size": 2560},
        phases=(
            "steps=100000",
            # 0.15 * 512, rounded up.
            "steps=100000 data.prepared_dir=prepared/chinese512 data.max_seq_length=512"
            " data.max_predictions_per_seq=77 train.batch_size=384",
        ),
    )
