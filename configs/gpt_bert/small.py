"""GPT-BERT small for 10 million words, trained on masked words, at sequence length 128.

    bertjax prepare gpt_bert/small --data.corpus my/text --output-dir prepared/gpt_bert_small
    bertjax train gpt_bert/small --run-dir runs/gpt_bert_small

30 million parameters (arXiv 2410.24159): `gpt_bert/base` with half the width and vocabulary, half
the updates (7,812), and a higher learning rate. What is said there of the text, the hardware and
the differences holds here.
"""

import math

from bertjax.config import Config
from bertjax.presets.gpt_bert import base


def get_config() -> Config:
    return base.get_config().replace(
        tokenizer={"vocab_size": 8192},
        data={"prepared_dir": "prepared/gpt_bert_small"},
        model={
            "vocab_size": 8192,
            "hidden_size": 384,
            "num_attention_heads": 6,
            "intermediate_size": 1280,
            "initializer_range": math.sqrt(2 / (5 * 384)),
        },
        optimizer={
            "peak_learning_rate": 1.41e-2,
            "end_learning_rate": 1.41e-3,
            "warmup_steps": 312,
        },
        train={"steps": 19_530, "batch_size_steps": 9765},
    )
