"""BERT base with the paper's hyperparameters, phase 1: 900,000 steps at sequence length 128.

    bertjax prepare base --data.corpus tfds:wikipedia/20230601.en --output-dir prepared/base128
    bertjax train base --run-dir runs/base

110 million parameters. Global batch size 256, Adam with a peak learning rate of 1e-4, 10,000 steps
of warmup, dropout 0.1 (arXiv 1810.04805, appendix A.2). The paper trained for 4 days on 4 Cloud
TPUs (16 chips). Phase 2 is `base_phase2`.
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
            # 0.15 * 128, rounded up, as in the original repository's instructions.
            max_predictions_per_seq=20,
            masking="token",
            num_shards=256,
        ),
        # 30,592 is the next multiple of 128 after 30,522: the TPU's matrix unit is 128 wide.
        model=ModelConfig(vocab_size=30_592, dtype="bfloat16"),
        optimizer=OptimizerConfig(peak_learning_rate=1e-4, warmup_steps=10_000),
        train=TrainConfig(steps=900_000, batch_size=256),
    )
