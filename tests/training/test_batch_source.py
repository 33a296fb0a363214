import dataclasses
import random

import numpy as np
import pytest
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.preparation.prepare import prepare
from bertjax.data.records.manifest import read_manifest
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.errors import UserError
from bertjax.training.batch_source import prepared_source
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.loop import train
from tests.factory import small_config


def corpus(folder, name, seed):
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(40)]
    sentences = [" ".join(rng.choices(words, k=rng.randint(1, 5))) + "." for _ in range(400)]
    path = folder / f"{name}.txt"
    path.write_text("\n\n".join("\n".join(sentences[i : i + 4]) for i in range(0, 400, 4)))
    return path


@pytest.fixture
def prepared(tmp_path):
    """`prepared(name, **data)`: the configuration of a folder, prepared from a corpus of that name."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text(
        "\n".join(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *(f"w{i}" for i in range(40))]
        )
    )

    def make(name, **data):
        folder = tmp_path / name
        options = {
            "max_seq_length": 16,
            "max_predictions_per_seq": 4,
            "dupe_factor": 1,
            "num_shards": 1,
            "workers": 1,
        }
        data = DataConfig(
            corpus=(str(corpus(tmp_path, name, name)),), prepared_dir=str(folder), **options | data
        )
        config = small_config(
            data=dataclasses.asdict(data) | {"validation_fraction": 0.2},
            mesh={"data": -1},
            train={"batch_size": 16},
        )
        config = dataclasses.replace(config, tokenizer=TokenizerConfig(vocab_file=str(vocabulary)))
        prepare(config, folder)
        return config

    return make


def run(config: Config, folder):
    tokenizer = load_tokenizer(next(iter(epath.Path(folder).glob("*/tokenizer"))))
    train(config, epath.Path(folder) / "run", prepared_source(config, tokenizer))
    return read_entries(epath.Path(folder) / "run")


@pytest.mark.parametrize("data,metrics", [
    pytest.param({"dynamic_masking": True}, {"nsp_loss", "nsp_accuracy"}, marks=pytest.mark.slow),
    ({"sentence_objective": "sentence_order", "masking": "span", "dynamic_masking": True}, {"sop_loss", "sop_accuracy"}),
    pytest.param({"sentence_objective": "none", "cross_documents": True, "masking": "ngram"}, set(), marks=pytest.mark.slow),
    ({"max_sequences_per_row": 3, "max_seq_length": 16}, {"nsp_loss", "nsp_accuracy"}),
    pytest.param({"max_sequences_per_row": 4, "sentence_objective": "none", "dynamic_masking": True}, set(), marks=pytest.mark.slow),
])  # fmt: skip
def test_every_kind_of_prepared_rows_trains_and_is_evaluated(prepared, tmp_path, data, metrics):
    rows = run(prepared("all", **data), tmp_path)
    trained, (first, *_) = (
        [r for r in rows if r["split"] == "train"],
        [r for r in rows if r["split"] == "validation"],
    )
    assert len(trained) == 6
    for row in (trained[0], first):
        assert row["mlm_loss"] == pytest.approx(np.log(64), abs=0.5)
        assert {name for name in row if name[:3] in ("nsp", "sop")} == metrics
    assert first["instances"] > 3
    assert trained[-1]["skipped"] == 0


def test_a_mixture_reports_each_corpus_rate_and_held_out_loss(prepared, tmp_path):
    config, other = prepared("en"), prepared("zh")
    mixture = (f"en={config.data.prepared_dir}", f"zh={other.data.prepared_dir}")
    data = dataclasses.replace(config.data, mixture=mixture, mixture_weights=(1.0, 3.0))
    rows = run(dataclasses.replace(config, data=data), tmp_path)
    trained, heldout = (
        [r for r in rows if r["split"] == "train"],
        [r for r in rows if r["split"] == "validation"],
    )
    rates = np.array([[row["rate/en"], row["rate/zh"]] for row in trained])
    assert np.allclose(rates.sum(axis=1), 1)
    assert 0.4 < rates[:, 1].mean() < 0.95
    for row in heldout:
        low, high = sorted((row["mlm_loss/en"], row["mlm_loss/zh"]))
        assert low < row["mlm_loss"] < high


def test_corpora_of_other_vocabularies_do_not_mix(prepared, tmp_path):
    config = prepared("one")
    (tmp_path / "vocab.txt").write_text((tmp_path / "vocab.txt").read_text() + "\nmore")
    other = prepared("two")
    mixture = (f"one={config.data.prepared_dir}", f"two={other.data.prepared_dir}")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, mixture=mixture))
    with pytest.raises(UserError, match="two: tokenizer: found"):
        prepared_source(
            config, load_tokenizer(epath.Path(mixture[0].partition("=")[2]) / "tokenizer")
        )


def test_a_shard_of_any_corpus_of_a_mixture_that_is_not_its_manifests_is_refused(prepared):
    config, other = prepared("one"), prepared("two")
    folder = epath.Path(other.data.prepared_dir)
    (path,) = folder.glob("train-*.tfrecord")
    size = read_manifest(folder).schemas["train"].record_bytes
    content = path.read_bytes()
    path.write_bytes(content[size : 2 * size] + content[:size] + content[2 * size :])
    mixture = (f"one={config.data.prepared_dir}", f"two={folder}")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, mixture=mixture))
    tokenizer = load_tokenizer(folder / "tokenizer")
    with pytest.raises(UserError, match=rf"{path}: found other bytes .*each record is whole"):
        prepared_source(config, tokenizer)
    # Who only evaluates reads no training records.
    assert prepared_source(config, tokenizer, trains=False).make_evaluator is not None
