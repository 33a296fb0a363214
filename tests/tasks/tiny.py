"""A tiny language, and a model that learns to judge it in seconds."""

import dataclasses
import json
import random

import jax
import numpy as np
from etils import epath
from scipy.special import erf

from bertjax.config import FinetuneConfig, MeshConfig, TrainConfig
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.finetuning import finetune
from bertjax.model import functional
from bertjax.training.saved_model import save_model
from tests.factory import SMALL_MODEL, small_config

WORDS = ["the", "cat", "dog", "bird", "sees", "hears", "one", "no", "good", "bad", "paris", "rome"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "."]
TOKENIZER = WordPiece(
    "vocab.txt", "".join(f"{entry}\n" for entry in VOCABULARY).encode(), lowercase=True
)
SECTIONS = {
    "model": {
        "hidden_size": 32,
        "hidden_dropout_prob": 0.1,
        "heads": ("pooler",),
        "initializer_range": 0.1,
    },
    "optimizer": {"peak_learning_rate": 6e-3, "warmup_steps": 0},
    "train": {"batch_size": 16, "log_every_steps": 1, "keep_checkpoints": 1}
    | {
        name: getattr(TrainConfig, name)
        for name in ("steps", "eval_every_steps", "save_every_steps")
    },
    "mesh": {"data": -1},
}
MODEL = dataclasses.replace(SMALL_MODEL, **SECTIONS["model"])
OPTIONS = {"max_seq_length": 16, "length_buckets": (), "epochs": 6.0}


def config_of(*tasks, **changes):
    """Fine-tuning on all eight devices with one length of rows; `changes` as in `small_config`."""
    options = FinetuneConfig(tasks=tasks, **OPTIONS | changes.pop("finetune", {}))
    plain = {name: value for name, value in changes.items() if not isinstance(value, dict)}
    sections = {
        name: SECTIONS.get(name, {}) | changes.get(name, {})
        for name in {*SECTIONS, *changes} - {*plain}
    }
    return small_config(**sections, finetune=options, **plain)


def sentences(count, seed=0):
    """Sentences of 2 to 9 words, all of them different."""
    rng = random.Random(seed)
    unique = {}
    while len(unique) < count:
        unique[" ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 9)))] = None
    return list(unique)


def write_table(path, rows, header=("sentence", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]))


def write_splits(folder, label, train=128, validation=40):
    """`train.tsv` and `dev.tsv`, each sentence with `label(sentence)`; returns the folder."""
    texts = sentences(train + validation)
    write_table(folder / "train.tsv", [(text, label(text)) for text in texts[:train]])
    write_table(folder / "dev.tsv", [(text, label(text)) for text in texts[train:]])
    return folder


def has_good(text):
    return "yes" if "good" in text else "no"


def write_tagged(folder, train=64, validation=20):
    """CoNLL files in which the towns are places."""
    texts = sentences(train + validation, seed=1)
    tag = lambda word: "B-LOC" if word in ("paris", "rome") else "O"  # noqa: E731
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train.txt", texts[:train]), ("dev.txt", texts[train:])):
        (folder / name).write_text(
            "\n".join("".join(f"{w}\t{tag(w)}\n" for w in text.split()) for text in part)
        )
    return folder


def save_start(folder, **changes):
    """A run to start from, with its parameters at random and its tokenizer; returns the folder."""
    config = config_of(**changes)
    config = dataclasses.replace(config, finetune=FinetuneConfig(), mesh=MeshConfig())
    params = jax.jit(lambda: functional.init(config.model, jax.random.key(7)))()
    save_model(folder, config, params, TOKENIZER, {})
    return folder


def fit(config, run, **options):
    """Fine-tune and write `result.json`; return the resolved configuration and the outcome."""
    prepared = finetune.prepare(config, TOKENIZER)
    config = finetune.resolve(config, prepared, ("pooler",) if config.init_from else ())
    outcome = finetune.finetune(config, epath.Path(run), prepared, TOKENIZER, **options)
    if not outcome.stopped:
        TOKENIZER.save(epath.Path(run) / "tokenizer")
        finetune.write_result(config, epath.Path(run), outcome.evaluations, prepared)
    return config, outcome


def identical(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def hidden_in_numpy(config, params, ids, second):
    """The hidden states [L, D] float64 of one row without padding, straight from the equations."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def norm(x, group):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred
            / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
            * group["scale"]
            + group["bias"]
        )

    e = p["embeddings"]
    positions = np.arange(len(ids))
    x = e["word"]["embedding"][ids] + e["position"]["embedding"][positions]
    x = norm(x + e["token_type"]["embedding"][(positions >= second).astype(int)], e["layer_norm"])
    for n in range(config.num_hidden_layers):
        layer = jax.tree.map(lambda leaf, n=n: leaf[n], p["encoder"]["layers"])
        a = layer["attention"]
        q, k, v = (
            np.einsum("ld,dhk->hlk", x, a[w]["kernel"]) + a[w]["bias"][:, None]
            for w in ("query", "key", "value")
        )
        logits = np.einsum("hlk,hmk->hlm", q, k) / np.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed = np.einsum("hlm,hmk->lhk", weights / weights.sum(-1, keepdims=True), v)
        x = norm(
            x + np.einsum("lhk,hkd->ld", mixed, a["output"]["kernel"]) + a["output"]["bias"],
            layer["attention_layer_norm"],
        )
        up = x @ layer["mlp"]["up"]["kernel"] + layer["mlp"]["up"]["bias"]
        down = (
            up * (1 + erf(up / np.sqrt(2))) / 2 @ layer["mlp"]["down"]["kernel"]
            + layer["mlp"]["down"]["bias"]
        )
        x = norm(x + down, layer["mlp_layer_norm"])
    return x


def row_of(rows, number):
    """(ids, second) of one row of `Rows`."""
    begin, end = rows.offsets[number : number + 2]
    return rows.ids[begin:end], rows.second_begins[number]


def read_json_strictly(path):
    """A JSON file's value; NaN and Infinity are no JSON."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(path.read_text(), parse_constant=refuse)
