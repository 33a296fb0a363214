"""NeoBERT, the first of two phases: 2 trillion tokens at sequence length 1,024.

    bertjax prepare neobert --data.corpus my/text --output-dir prepared/neobert
    bertjax train neobert --run-dir runs/neobert

245 million parameters (arXiv 2502.19587): a deep and narrow encoder with rotary positions, RMS
norms and gated feed-forward sublayers. RefinedWeb, 600 billion tokens of English web pages; 8 H100,
6,000 GPU hours for both phases. The optimizer's settings are the paper's; its published code has a
learning rate of 1e-4 and a weight decay of 0.01.

What differs here:

- The learning rate falls until the last step. In the paper it has reached 6e-5 after 90 % of the
  steps and stays there.
- A document fills as many rows as it needs. The paper's is cut off after one row.
- The second phase is not here: 50,000 steps with rows of 4,096 tokens and as many tokens in a
  batch, mostly from documents of more than 1,024 tokens.
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
        tokenizer=TokenizerConfig(vocab_size=30_522),
        data=DataConfig(
            prepared_dir="prepared/neobert",
            max_seq_length=1024,
            # 0.2 * 1024, rounded up.
            max_predictions_per_seq=205,
            mlm_probability=0.2,
            masking="token",
            mask_shares=(1.0, 0.0, 0.0),
            dynamic_masking=True,
            dupe_factor=1,
            sentence_objective="none",
            short_seq_probability=0.0,
        ),
        model=family(
            "neobert",
            vocab_size=30_522,
            hidden_size=768,
            num_hidden_layers=28,
            num_attention_heads=12,
            intermediate_size=2048,
            dtype="bfloat16",
        ),
        optimizer=OptimizerConfig(
            peak_learning_rate=6e-4,
            end_learning_rate=6e-5,
            schedule="cosine",
            warmup_steps=2_000,
            b2=0.95,
            eps=1e-8,
            weight_decay=0.1,
        ),
        # 2,097,152 tokens a batch.
        train=TrainConfig(steps=1_000_000, batch_size=2048),
    )
