r"""BERT large, phase 2: the last 100,000 steps of the paper's million, at length 512, from phase 1.

    bertjax prepare configs/large_phase2.py --data.corpus tfds:wikipedia/20230601.en \
        --tokenizer.vocab-file prepared/base128/tokenizer/vocab.txt --output-dir prepared/base512
    bertjax train configs/large_phase2.py --init-from runs/large --run-dir runs/large512

Parameters come from phase 1's newest checkpoint; the optimizer starts anew with a short warmup
to the rate at which phase 1 would have gone on.
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
            prepared_dir="prepared/base512",
            max_seq_length=512,
            max_predictions_per_seq=77,
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
        optimizer=OptimizerConfig(peak_learning_rate=1e-5, warmup_steps=1_000),
        train=TrainConfig(steps=100_000, batch_size=256),
    )
