"""A small preparation, and what it wrote."""

import hashlib

import numpy as np
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.records.reader import PreparedRecords


def config_of(corpus, seed=0, **data):
    defaults = {
        "corpus": (str(corpus),), "max_seq_length": 32, "max_predictions_per_seq": 5, "validation_fraction": 0.1,
        "dupe_factor": 3, "num_shards": 3, "workers": 1,
    }  # fmt: skip
    return Config(
        seed=seed, data=DataConfig(**defaults | data), tokenizer=TokenizerConfig(vocab_size=400)
    )


def digests(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows_of(folder, manifest, split):
    records = PreparedRecords(epath.Path(folder), manifest, split)
    return records.read(np.arange(len(records)))
