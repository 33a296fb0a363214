"""A demonstration: a small BERT, trained on CPython's own documentation on a laptop's CPU.

    bertjax prepare tiny
    bertjax train tiny --run-dir runs/tiny

It takes about 4 minutes on two cores. The held-out masked-word loss should end near 4.5 nats; a
model that knows word frequencies only has 5.9. `docs/reference_curve.md` has the curve. The
settings are not the paper's, but those that learn fastest in so few steps: a vocabulary and a model
that fit half a million tokens, no dropout, and a wider initialization.
"""

from bertjax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        tokenizer=TokenizerConfig(vocab_size=2048),
        data=DataConfig(
            prepared_dir="prepared/tiny",
            masking="token",
            max_seq_length=64,
            max_predictions_per_seq=10,
            validation_fraction=0.05,
            dupe_factor=10,
            num_shards=4,
        ),
        model=ModelConfig(
            vocab_size=2048,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
            max_position_embeddings=128,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.06,
            scan_unroll=2,
        ),
        optimizer=OptimizerConfig(peak_learning_rate=1.5e-3, warmup_steps=200),
        train=TrainConfig(
            steps=3000,
            batch_size=32,
            log_every_steps=50,
            eval_every_steps=500,
            eval_max_batches=40,
            save_every_steps=500,
        ),
    )
