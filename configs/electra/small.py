"""ELECTRA small: a model that finds the tokens that a smaller one has replaced.

    bertjax prepare electra/small --data.corpus my/text --output-dir prepared/electra
    bertjax train electra/small --run-dir runs/electra_small

14 million parameters, and a generator of a quarter of the width beside them in training
(arXiv 2003.10555, tables 6 and 7; settings as in configure_pretraining.py of the authors'
repository). The text was that of BERT, Wikipedia and books. The paper trained 1 million steps in
4 days on one V100 GPU, and reports a GLUE score of 79.9 on the development sets.

What differs here: a row is one stretch of text; in the script some rows were cut into two segments.
"""

from bertjax.config import (
    Config,
    DataConfig,
    OptimizerConfig,
    ReplacedConfig,
    TokenizerConfig,
    TrainConfig,
    family,
)


def get_config() -> Config:
    return Config(
        tokenizer=TokenizerConfig(vocab_size=30_522),
        data=DataConfig(
            prepared_dir="prepared/electra",
            max_seq_length=128,
            # (0.15 + 0.005) * 128, rounded down.
            max_predictions_per_seq=19,
            masking="token",
            # As in pretrain_helpers.py of the same repository.
            mask_shares=(0.85, 0.0, 0.15),
            dynamic_masking=True,
            dupe_factor=1,
            sentence_objective="none",
        ),
        model=family(
            "electra",
            vocab_size=30_522,
            embedding_size=128,
            hidden_size=256,
            num_hidden_layers=12,
            num_attention_heads=4,
            intermediate_size=1024,
            heads=("rtd",),
            dtype="bfloat16",
        ),
        replaced=ReplacedConfig(generator="tied", generator_size=0.25),
        # The script's Adam has no bias correction, as BERT's.
        optimizer=OptimizerConfig(
            algorithm="bert", peak_learning_rate=5e-4, weight_decay=0.01, warmup_steps=10_000
        ),
        train=TrainConfig(steps=1_000_000, batch_size=128),
    )
