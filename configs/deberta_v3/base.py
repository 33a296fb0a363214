"""DeBERTa-v3 base, trained on masked words, at sequence length 512.

    bertjax prepare deberta_v3/base --data.corpus my/text --output-dir prepared/deberta_v3
    bertjax train deberta_v3/base --run-dir runs/deberta_v3_base

185 million parameters, of which 98 million are word embeddings (arXiv 2111.09543): BERT's layers
with disentangled attention to relative positions, in place of position embeddings. 160 GB of
English text (Wikipedia, books, news, web pages, stories). Hardware and hours were not published.
Learning rate, batch size and steps are those of the published script for this size.

What differs here:

- The objective is masked words. The published model is a discriminator, trained to find the tokens
  that a generator of the same width and half the layers has replaced; the two share embeddings
  without sharing their gradients.
- Of the tokens to predict, 80 % become [MASK], 10 % another token, and 10 % stay; in the script all
  become [MASK].
"""

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
        tokenizer=TokenizerConfig(kind="unigram", vocab_size=128_000, lowercase=False),
        data=DataConfig(
            prepared_dir="prepared/deberta_v3",
            max_seq_length=512,
            # 0.15 * 512, rounded up.
            max_predictions_per_seq=77,
            masking="ngram",
            dynamic_masking=True,
            dupe_factor=1,
            sentence_objective="none",
            short_seq_probability=0.0,
        ),
        model=family(
            "deberta-v2",
            vocab_size=128_100,
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            dtype="bfloat16",
        ),
        optimizer=OptimizerConfig(peak_learning_rate=1e-4, warmup_steps=10_000),
        train=TrainConfig(steps=1_000_000, batch_size=256),
    )
