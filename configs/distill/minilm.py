"""MiniLMv2 (arXiv 2012.15828): relations between queries, between keys and between values.

    bertjax prepare distill/minilm --distill.teacher runs/base --data.corpus my_text.txt
    bertjax distill distill/minilm --teacher runs/base

The student has 6 layers of width 384 and begins with random parameters. Its last layer learns the
relations of one layer of the teacher: of a base model the last one, of a large model one above the
middle (`--distill.relation-layer 21` of 24). The vectors are divided into 48 relation heads (64 for
a large teacher), whatever heads the two models have. The paper has rows of 512 tokens of Wikipedia
and the Toronto Book Corpus, and 400,000 steps of 256 rows.
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
            prepared_dir="prepared/minilm",
            max_seq_length=512,
            max_predictions_per_seq=76,
            sentence_objective="none",
        ),
        model=ModelConfig(
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1_536,
            heads=(),
        ),
        distill=DistillConfig(
            student_from_teacher=False,
            start="random",
            objective_weight=0.0,
            soft_weight=0.0,
            relation_weight=1.0,
            relation_heads=48,
        ),
        optimizer=OptimizerConfig(peak_learning_rate=6e-4, warmup_steps=4_000),
        train=TrainConfig(
            steps=400_000, batch_size=256, eval_every_steps=10_000, save_every_steps=10_000
        ),
    )
