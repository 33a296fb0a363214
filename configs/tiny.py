from bertjax.config import *


def get_config():
    return Config(
        tokenizer=TokenizerConfig(vocab_size=4096),
        data=DataConfig(
            prepared_dir="/tmp/prep/tiny",
            num_shards=4,
            max_seq_length=64,
            max_predictions_per_seq=10,
            validation_fraction=0.05,
            dupe_factor=10,
        ),
        model=ModelConfig(
            vocab_size=4096,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
            max_position_embeddings=128,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            scan_unroll=2,
        ),
        optimizer=OptimizerConfig(peak_learning_rate=1e-3, warmup_steps=300),
        train=TrainConfig(steps=3000, batch_size=64, log_every_steps=50, eval_every_steps=500, save_every_steps=500),
    )
