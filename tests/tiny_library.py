"""A folder in which the examples of the docstrings run: a tiny run, its data, and a task."""

import random

from tests.tasks.tiny import has_good, sentences, write_splits, write_table

PRETRAIN = """
from bertjax.config import *

def get_config():
    return Config(
        tokenizer=TokenizerConfig(vocab_size=120),
        data=DataConfig(corpus=("corpus.txt",), prepared_dir="prepared/tiny", max_seq_length=32,
                        max_predictions_per_seq=5, validation_fraction=0.2, dupe_factor=1,
                        num_shards=1, workers=1),
        model=ModelConfig(vocab_size=120, hidden_size=32, num_hidden_layers=2,
                          num_attention_heads=2, intermediate_size=32, max_position_embeddings=32),
        optimizer=OptimizerConfig(warmup_steps=1),
        train=TrainConfig(steps=2, batch_size=8, log_every_steps=1, eval_every_steps=2,
                          save_every_steps=2),
    )
"""
FINETUNE = """
from bertjax.config import *

def get_config():
    return Config(
        model_from_init=True,
        init_from="runs/tiny",
        optimizer=OptimizerConfig(peak_learning_rate=1e-3, warmup_steps=0),
        train=TrainConfig(batch_size=8),
        finetune=FinetuneConfig(tasks=("good:classification=tasks/good",), epochs=1,
                                max_seq_length=16, length_buckets=()),
    )
"""


def write_library(folder):
    """Write the configurations, a corpus and a task into `folder`."""
    words = [
        "the",
        "cat",
        "dog",
        "bird",
        "fish",
        "sees",
        "hears",
        "follows",
        "other",
        "no",
        "one",
        "good",
        "bad",
    ]
    rng = random.Random(0)
    documents = []
    for _ in range(60):
        lines = [" ".join(rng.choices(words, k=rng.randint(3, 8))) + "." for _ in range(6)]
        documents.append("\n".join(lines))
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    (folder / "tiny.py").write_text(PRETRAIN)
    (folder / "finetune.py").write_text(FINETUNE)
    task = write_splits(folder / "tasks" / "good", has_good, train=24, validation=8)
    tests = [(number, text) for number, text in enumerate(sentences(4, seed=5))]
    write_table(task / "test.tsv", tests, ["id", "sentence"])
    return folder
