"""GPT-BERT base for 100 million words, trained on masked words, at sequence length 128.

    bertjax prepare gpt_bert/base --data.corpus my/text --output-dir prepared/gpt_bert_base
    bertjax train gpt_bert/base --run-dir runs/gpt_bert_base

119 million parameters (arXiv 2410.24159): disentangled attention to relative positions, a gate on
the values, gated feed-forward sublayers, and a learned mix of all earlier outputs after each
sublayer. Equal parts of the BabyLM corpus, FineWeb-Edu and Cosmopedia. Hardware and hours were not
published; the training scripts need 16 processes or a multiple of them.

What differs here:

- The objective is masked words alone. The paper mixes it with next words, one row in 16, and
  predicts each masked word one position before it (--data.causal-share 0.0625
  --model.mlm-shifted True --data.max-predictions-per-seq 127).
- Spans of one to three words are masked, in the paper of one to three tokens. 30 % of the tokens
  are masked; in the paper the share falls linearly to 15 %.
- All rows have 128 tokens. In the paper they have 256 from 70 % of the updates on, and 512 from
  90 % on, with as many tokens in a batch.
- The batch grows from 8,192 rows to 32,768 in two doublings; in the paper linearly over the whole
  run. The number of rows in all is the paper's: 15,625 updates of 20,480 rows on average, or 39,062
  steps of 8,192. For another `train.batch_size` set `train.batch_size_schedule constant`, or
  `train.max_batch_size` too.
- The learning rate falls to a tenth as a cosine, without the linear last 1.6 %, and there is no
  moving average of the parameters.
"""

import math

from bertjax.config import (
    Config,
    DataConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    family,
)


def get_config() -> Config:
    return Config(
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=16_384, lowercase=False),
        data=DataConfig(
            prepared_dir="prepared/gpt_bert_base",
            max_seq_length=128,
            # 0.3 * 128, rounded up.
            max_predictions_per_seq=39,
            mlm_probability=0.3,
            masking="ngram",
            dynamic_masking=True,
            dupe_factor=1,
            sentence_objective="none",
            short_seq_probability=0.0,
        ),
        model=family(
            "gpt_bert",
            vocab_size=16_384,
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=2560,
            initializer_range=math.sqrt(2 / (5 * 768)),
            z_loss=1e-4,
            dtype="bfloat16",
        ),
        optimizer=OptimizerConfig(
            algorithm="lamb",
            peak_learning_rate=1e-2,
            end_learning_rate=1e-3,
            schedule="cosine",
            # 1.6 % of the steps.
            warmup_steps=625,
            b2=0.98,
            eps=1e-8,
            weight_decay=0.1,
            max_grad_norm=2.0,
        ),
        train=TrainConfig(
            steps=39_062,
            batch_size=8192,
            batch_size_schedule="ramp",
            max_batch_size=32_768,
            batch_size_steps=19_531,
        ),
    )
