"""Crammed BERT: one GPU, one day.

    bertjax prepare recipes/crammed --data.corpus my/text
    bertjax train recipes/crammed --run-dir runs/crammed

Source: arXiv 2212.14034, and the authors' repository: architecture `crammed-bert`, training
`bert-o4`. 120 million parameters: 16 layers, norms before sublayers, gated feed-forward sublayers
of width 1,536, no biases but those of norms, no hidden layer before the logits. Rows of 128 tokens,
25 % masked, no dropout, gradients clipped at 0.5. The learning rate rises from 2.5e-4 to 1e-3 in
the first 75 % of the budget and falls to 0 in the rest; the batch grows to 8,192 rows in the first
60 %. A part of The Pile.

Hardware and time: one A6000 GPU, 24 hours. Published figure: GLUE 78.6 on average.

What differs here:

- The budget is 8 billion tokens, our guess of a day on an A6000: `train.budget` would be 24 hours,
  but goes neither with phases nor with a batch that grows.
- The batch grows from 1,024 rows by doubling, the authors' linearly.
- Positions are a learned table; the authors' are sines and cosines times a learned factor, which
  begins at 1 / sqrt(768).
- The authors fine-tune with dropout 0.1: `--model.hidden-dropout-prob 0.1` and
  `--model.attention-probs-dropout-prob 0.1` of `bertjax finetune`.
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
        tokenizer=TokenizerConfig(vocab_size=32_768),
        data=DataConfig(
            prepared_dir="prepared/crammed",
            max_seq_length=128,
            # 0.25 * 128.
            max_predictions_per_seq=32,
            mlm_probability=0.25,
            masking="token",
            dynamic_masking=True,
            dupe_factor=1,
            sentence_objective="none",
            cross_documents=True,
            short_seq_probability=0.0,
        ),
        model=ModelConfig(
            vocab_size=32_768,
            num_hidden_layers=16,
            feed_forward="gated",
            intermediate_size=1536,
            max_position_embeddings=128,
            type_vocab_size=0,
            norm_place="before",
            final_norm=True,
            biases=("norm", "pooler"),
            mlm_transform=False,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            heads=("mlm",),
            dtype="bfloat16",
        ),
        # "linear" leads from the first rate to the last, upwards too.
        optimizer=OptimizerConfig(
            peak_learning_rate=2.5e-4,
            end_learning_rate=1e-3,
            warmup_steps=0,
            b2=0.98,
            eps=1e-12,
            weight_decay=0.01,
            max_grad_norm=0.5,
        ),
        train=TrainConfig(
            steps=61_036,
            batch_size=1024,
            batch_size_schedule="ramp",
            max_batch_size=8192,
            batch_size_tokens=4_800_000_000,
        ),
        phases=(
            "tokens=6B",
            "tokens=2B optimizer.peak_learning_rate=1e-3 optimizer.end_learning_rate=0",
        ),
    )
