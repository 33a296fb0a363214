"""BERT small (4 layers, hidden size 512; arXiv 1908.08962), at sequence length 128.

    bertjax prepare small --data.corpus my/text --output-dir prepared/small
    bertjax train small --data.prepared-dir prepared/small --run-dir runs/small

29 million parameters with the vocabulary of 30,522 tokens: for one GPU or one v5e TPU chip.
Learning-rate schedule, batch size and dropout are the paper's. On a CPU take fewer steps
(`--train.steps 1000 --optimizer.warmup-steps 100`).
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
            prepared_dir="prepared/small",
            max_seq_length=128,
            max_predictions_per_seq=20,
            num_shards=64,
        ),
        model=ModelConfig(
            vocab_size=30_592,
            hidden_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            intermediate_size=2048,
            dtype="bfloat16",
        ),
        optimizer=OptimizerConfig(peak_learning_rate=1e-4, warmup_steps=10_000),
        train=TrainConfig(steps=1_000_000, batch_size=256),
    )
