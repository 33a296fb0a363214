"""Tiny runs of two lengths, of which every checkpoint is kept."""

import contextlib

import bertjax
from tests.tiny_library import write_library

SECOND = (
    "data.prepared_dir=prepared/short data.max_seq_length=16 data.max_predictions_per_seq=3"
    " optimizer.schedule=sqrt"
)


def config_of(**changes):
    """The configuration; with 45 rows and batches of 8 the first phase has more than one epoch."""
    config = bertjax.load_config("tiny.py")
    train = {"steps": 9, "save_every_steps": 1, "keep_every_steps": 1, "keep_steps": (0,)}
    return config.replace(
        phases=changes.pop("phases", ("steps=6", SECOND)),
        train=train | {"eval_every_steps": 50} | changes.pop("train", {}),
        model={"num_hidden_layers": 1},
        mesh=changes.pop("mesh", {"data": 8}),
        **changes,
    )


@contextlib.contextmanager
def library(folder):
    """The current folder, with a prepared folder of each length."""
    with contextlib.chdir(write_library(folder)):
        first = config_of().replace(phases=())
        bertjax.prepare(first)
        short = {"max_seq_length": 16, "prepared_dir": "prepared/short"}
        vocabulary = {"vocab_file": "prepared/tiny/tokenizer/vocab.txt"}
        bertjax.prepare(
            first.replace(data={**short, "max_predictions_per_seq": 3}, tokenizer=vocabulary)
        )
        yield folder
