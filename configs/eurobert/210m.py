"""EuroBERT 210m, the first of two phases: 4.8 trillion tokens at sequence length 2,048.

    bertjax prepare eurobert/210m --data.corpus my/text --output-dir prepared/eurobert
    bertjax train eurobert/210m --run-dir runs/eurobert_210m

212 million parameters and a second matrix of 98 million for the logits (arXiv 2503.05500): the
layers of Llama 3 without a causal mask. 15 languages (FineWeb, CulturaX), parallel text, code (The
Stack v2) and mathematics (Proof-Pile-2). MI250X, 15,000 hours; the paper gives 92 of them in its
text and 192 in its table of settings.

What differs here:

- Of the tokens to predict, 80 % become [MASK], 10 % another token, and 10 % stay; in the published
  code all become [MASK].
- The paper prints a variance of 0.2 for the initial weights. Here they have the deviation of its
  class in `transformers`, 0.02.
- The second phase is not here: 200 billion tokens in rows of 12 to 8,192, 10 % masked, with
  `model.rotary_base` 250,000, while the learning rate falls to 0 as a cosine.
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
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=128_256, lowercase=False),
        data=DataConfig(
            prepared_dir="prepared/eurobert",
            max_seq_length=2048,
            max_predictions_per_seq=1024,
            mlm_probability=0.5,
            masking="token",
            dynamic_masking=True,
            dupe_factor=1,
            sentence_objective="none",
            cross_documents=True,
            short_seq_probability=0.0,
        ),
        model=family(
            "eurobert",
            vocab_size=128_256,
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            rotary_base=10_000.0,
            dtype="bfloat16",
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-4,
            schedule="constant",
            warmup_steps=2_000,
            b2=0.95,
            eps=1e-5,
            weight_decay=0.1,
        ),
        # 9,437,184 tokens a batch.
        train=TrainConfig(steps=508_626, batch_size=4608),
    )
