"""ModernBERT base, the first of three phases: 1.719 trillion tokens at sequence length 1,024.

    bertjax prepare modernbert/base --data.corpus my/text --output-dir prepared/modernbert
    bertjax train modernbert/base --run-dir runs/modernbert_base

150 million parameters (arXiv 2412.13663): rotary positions, two local layers after each global one,
gated feed-forward sublayers, no biases. English web pages, code and scientific text, whose list was
not published; 8 H100, 194 hours. 30 % of the tokens are masked; the paper evaluates with 15 %.

What differs here:

- The optimizer is AdamW with clipped gradients. The paper's StableAdamW clips its updates instead;
  after a few billion tokens the losses were nearly the same, but AdamW's had more spikes.
- The batch has its full size from the start. The paper's grew from 768 to 4,608 rows in the first
  50 billion tokens.
- The learning rate stays at its peak, and the other phases are not here. Second phase: 250 billion
  tokens in rows of 8,192, batches of 576 rows, learning rate 3e-4, and `model.rotary_base` 160,000
  (40 hours); `--init-from` this run, with these options, makes it. Third: 50 billion tokens, while
  the rate falls to 0.1 % as 1 - sqrt (12 hours). The published model is the mean of the last
  checkpoint and the three best ones before it.
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
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=50_368, lowercase=False),
        data=DataConfig(
            prepared_dir="prepared/modernbert",
            max_seq_length=1024,
            # 0.3 * 1024, rounded up.
            max_predictions_per_seq=308,
            mlm_probability=0.3,
            masking="token",
            dynamic_masking=True,
            dupe_factor=1,
            sentence_objective="none",
            short_seq_probability=0.0,
            max_sequences_per_row=16,
        ),
        model=family(
            "modernbert",
            vocab_size=50_368,
            hidden_size=768,
            num_hidden_layers=22,
            num_attention_heads=12,
            intermediate_size=1152,
            rotary_base=10_000.0,
            dtype="bfloat16",
        ),
        # 3 and 1,719 billion tokens in batches of 4,608 rows. The paper's weight decay, 1e-5, is
        # that of a step at the peak rate; ours is multiplied by the rate.
        optimizer=OptimizerConfig(
            peak_learning_rate=8e-4,
            schedule="constant",
            warmup_steps=636,
            b2=0.98,
            eps=1e-6,
            weight_decay=1e-5 / 8e-4,
        ),
        train=TrainConfig(steps=364_304, batch_size=4608),
    )
