"""TinyBERT (arXiv 1909.10351), first stage: hidden states, attention scores and embeddings.

    bertjax prepare distill/tinybert --distill.teacher runs/base --data.corpus my_text.txt
    bertjax distill distill/tinybert --teacher runs/base

The student has 4 layers of width 312 with 12 heads, a seventh of BERT base, and begins with random
parameters. Its layer m learns from layer 3 m of the teacher: hidden states by a learned projection,
and the scores of all heads before the softmax. The embeddings learn by a projection of their own.
There are no masked words in this stage. The paper has rows of 128 tokens of English Wikipedia and
three epochs; on GLUE the student has 96.8 % of the teacher's mean, after a second stage on each
task with augmented data.
"""

from bertjax.config import (
    Config,
    DataConfig,
    DistillConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        data=DataConfig(
            prepared_dir="prepared/tinybert", max_seq_length=128, sentence_objective="none"
        ),
        model=ModelConfig(
            hidden_size=312,
            num_hidden_layers=4,
            num_attention_heads=12,
            intermediate_size=1_200,
            heads=(),
        ),
        distill=DistillConfig(
            student_from_teacher=False,
            start="random",
            objective_weight=0.0,
            soft_weight=0.0,
            embedding_weight=1.0,
            hidden_weight=1.0,
            attention_weight=1.0,
        ),
        optimizer=OptimizerConfig(peak_learning_rate=1e-4, warmup_steps=30_000),
        train=TrainConfig(
            steps=300_000, batch_size=256, eval_every_steps=10_000, save_every_steps=10_000
        ),
    )
