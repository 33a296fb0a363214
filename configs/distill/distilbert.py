"""DistilBERT (arXiv 1910.01108): half the layers, soft targets, masked words, cosine.

    bertjax prepare distill/distilbert --distill.teacher runs/base --data.corpus my_text.txt
    bertjax distill distill/distilbert --teacher runs/base

The student starts from every second layer of the teacher. The losses are weighted as in the
authors' script: soft targets at temperature 2 times 5, masked words times 2, the cosine of the last
hidden states times 1. The paper has rows of 512 tokens, masks that are new in each epoch, no pairs
of sentences, about 4,000 rows a step, three epochs of Wikipedia and the Toronto Book Corpus, 90
hours on eight V100; the mean of GLUE fell from 79.5 to 77.0. The 6,000 steps are three epochs of
text of that size. What differs here: the student keeps the token types that its teacher has.
"""

from bertjax.config import Config, DataConfig, DistillConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(
            prepared_dir="prepared/distilbert",
            max_seq_length=512,
            max_predictions_per_seq=76,
            sentence_objective="none",
            dynamic_masking=True,
        ),
        distill=DistillConfig(
            objective_weight=2.0, soft_weight=5.0, temperature=2.0, cosine_weight=1.0
        ),
        # 5 % of the steps are warmup, and no weight decays.
        optimizer=OptimizerConfig(
            peak_learning_rate=5e-4, warmup_steps=300, weight_decay=0.0, max_grad_norm=5.0
        ),
        train=TrainConfig(
            steps=6_000, batch_size=4_096, eval_every_steps=1_000, save_every_steps=1_000
        ),
    )
