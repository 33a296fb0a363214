"""BERT large with the paper's hyperparameters, phase 1: 900,000 steps at length 128.

    bertjax prepare configs/large.py --data.corpus tfds:wikipedia/20230601.en --output-dir prepared/base128
    bertjax train configs/large.py --run-dir runs/large

340 million parameters, otherwise as `base.py`. The paper trained for 4 days on 16 Cloud TPUs
(64 chips). Phase 2 is `large_phase2.py`.
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
        tokenizer=TokenizerConfig(vocab_size=30_522),
        data=DataConfig(
            prepared_dir="prepared/base128",
            max_seq_length=128,
            max_predictions_per_seq=20,
            masking="token",
            num_shards=256,
        ),
        model=ModelConfig(
            vocab_size=30_592,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            dtype="bfloat16",
        ),
        optimizer=OptimizerConfig(peak_learning_rate=1e-4, warmup_steps=10_000),
        train=TrainConfig(steps=900_000, batch_size=256),
    )
