"""A folder with one small thing of each kind that the verbs read, made by the verbs themselves.

Command lines are run inside it, so that they can name everything by short relative paths.
"""

import contextlib
import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

from bertjax.cli.main import main

CONFIG = """
from bertjax.config import *

def get_config():
    return Config(
        tokenizer=TokenizerConfig(vocab_size=200),
        data=DataConfig(corpus=("corpus.txt",), prepared_dir="prepared", max_seq_length=16,
                        max_predictions_per_seq=3, validation_fraction=0.1, num_shards=2, workers=1),
        model=ModelConfig(vocab_size=200, hidden_size=16, num_hidden_layers=1,
                          num_attention_heads=2, intermediate_size=32, max_position_embeddings=16),
        optimizer=OptimizerConfig(warmup_steps=1),
        train=TrainConfig(steps=2, batch_size=8, log_every_steps=1, eval_every_steps=2,
                          save_every_steps=2),
    )
"""
TASK_CONFIG = """
from bertjax.config import *

def get_config():
    return Config(
        init_from="run", model_from_init=True,
        data=DataConfig(max_seq_length=16, max_predictions_per_seq=3),
        model=ModelConfig(vocab_size=200, hidden_size=16, num_hidden_layers=1,
                          num_attention_heads=2, intermediate_size=32, max_position_embeddings=16),
        train=TrainConfig(batch_size=8, log_every_steps=1),
        finetune=FinetuneConfig(tasks=("mood:classification=mood", "names:tagging=names"),
                                max_seq_length=16, length_buckets=(16,), epochs=1),
    )
"""
# One task, as sweeps need it.
SWEEP_CONFIG = TASK_CONFIG.replace(', "names:tagging=names"', ",")
NOUNS = ["cat", "dog", "bird", "fish", "horse"]
VERBS = ["sees", "hears", "follows", "likes"]

MADE_BY = [
    ["prepare", "config.py"],
    ["train", "config.py", "--run-dir", "run"],
    ["finetune", "task.py", "--run-dir", "finetuned"],
    ["finetune", "sweep.py", "--run-dir", "swept", "--seeds", "0", "1"],
    ["evaluate", "run"],
    ["export", "run", "--to", "exported"],
    ["import", "exported", "--to", "imported"],
    ["distill", "--static", "run", "--to", "table"],
]
"""The command lines that make what the others read."""


def make(folder: Path) -> None:
    """Write the sources into a new folder, and make everything else of them."""
    folder.mkdir(parents=True)
    _write_sources(folder)
    with inside(folder):
        for words in MADE_BY:
            said = io.StringIO()
            with contextlib.redirect_stdout(_Terminal()), contextlib.redirect_stderr(said):
                status = main(words)
            assert status == 0, (words, said.getvalue())


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Make `folder` the working directory of the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class _Terminal(io.TextIOWrapper):
    """A stdout that can be reconfigured, as the real one, and keeps what is printed."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")


def _write_sources(folder: Path) -> None:
    rng = random.Random(0)

    def sentence() -> str:
        noun = rng.choice(NOUNS)
        return f"the {noun} {rng.choice(VERBS)} the other {noun}."

    documents = ["\n".join(sentence() for _ in range(4)) for _ in range(60)]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    lines = [json.dumps({"text": document}) for document in documents]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "texts.txt").write_text("the cat sees the dog.\n\nthe bird.\n")
    (folder / "config.py").write_text(CONFIG)
    (folder / "task.py").write_text(TASK_CONFIG)
    (folder / "sweep.py").write_text(SWEEP_CONFIG)
    (folder / "new_words.txt").write_text("zebra\nlion\n")
    numbers = " ".join(["0.5"] * 16)
    (folder / "vectors.txt").write_text(f"cat {numbers}\ndog {numbers}\n")
    for split, count in (("train", 16), ("validation", 8), ("test", 8)):
        (folder / "mood").mkdir(exist_ok=True)
        rows = [f"{sentence()}\t{rng.choice(['good', 'bad'])}" for _ in range(count)]
        # Both classes, in every split.
        rows += ["the cat\tgood", "the dog\tbad"]
        (folder / "mood" / f"{split}.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
        (folder / "names").mkdir(exist_ok=True)
        tags = ["the O\ncat B-ANIMAL\nsees O\nthe O\ndog B-ANIMAL\n"] * count
        (folder / "names" / f"{split}.conll").write_text("\n".join(tags))
