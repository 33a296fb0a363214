"""BERT base with the paper's hyperparameters, phase 1: 900,000 steps at length 128.

    bertjax prepare configs/base.py --data.corpus tfds:wikipedia/20230601.en --output-dir prepared/base128
    bertjax train configs/base.py --run-dir runs/base

110 million parameters; batch 256, Adam at 1e-4, 10,000 steps of warmup, dropout 0.1 (arXiv
1810.04805, appendix A.2). The paper trained for 4 days on 4 Cloud TPUs (16 chips).
Phase 2 is `base_phase2.py`.
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
        model=ModelConfig(vocab_size=30_592, dtype="bfloat16"),
        optimizer=OptimizerConfig(peak_learning_rate=1e-4, warmup_steps=10_000),
        train=TrainConfig(steps=900_000, batch_size=256),
    )
