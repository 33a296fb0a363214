import dataclasses

import jax
import pytest

from bertjax.config import Config, DataConfig, ModelConfig, TokenizerConfig, TrainConfig
from bertjax.data.preparation.prepare import prepare
from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.estimate.abstract_batch import abstract_batch, abstract_vocabulary
from bertjax.parallel.mesh import make_mesh
from bertjax.training.batch_source import prepared_source

TEXT = "\n".join(
    f"sentence {i} of a story about numbers {i * i} and their words ." for i in range(40)
)


def config_of(folder, **data):
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number in range(8):
        (corpus / f"{number}.txt").write_text(TEXT.replace("story", f"story{number}"))
    settings = {
        "max_seq_length": 32,
        "max_predictions_per_seq": 6,
        "validation_fraction": 0.3,
        "dupe_factor": 1,
    }
    return Config(
        tokenizer=TokenizerConfig(vocab_size=120),
        data=DataConfig(
            corpus=(str(corpus),),
            prepared_dir=str(folder / "prepared"),
            format="file",
            num_shards=1,
            workers=1,
            **settings | data,
        ),
        model=ModelConfig(vocab_size=512, max_position_embeddings=32),
        train=TrainConfig(batch_size=8),
    )


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"masking": "token", "dynamic_masking": True},
        {"masking": "whole_word", "dynamic_masking": True},
        {"sentence_objective": "none"},
        {"max_sequences_per_row": 3},
        {"word_segmenter": "jieba"},
        {"max_sequences_per_row": 3, "sentence_objective": "none", "dynamic_masking": True},
    ],
    ids=[
        "static",
        "dynamic tokens",
        "dynamic words",
        "no sentences",
        "packed",
        "words segmented",
        "packed, dynamic, no sentences",
    ],
)
def test_the_abstract_batch_is_a_prepared_one_without_its_numbers(tmp_path, data):
    if "word_segmenter" in data:
        pytest.importorskip("jieba")
    config = config_of(tmp_path, **data)
    prepare(config, tmp_path / "prepared")
    folders = tuple(f"{name}={tmp_path / 'prepared'}" for name in "ab")
    for mixture in ((), folders[:1], folders):
        mixed = dataclasses.replace(config, data=dataclasses.replace(config.data, mixture=mixture))
        source = prepared_source(mixed, load_tokenizer(tmp_path / "prepared" / "tokenizer"))
        real = next(source.train(0, slice(None)))
        abstract = abstract_batch(mixed, make_mesh(mixed.mesh, jax.devices()[:1]))
        assert {name: (x.shape, x.dtype) for name, x in abstract.items()} == {
            name: (x.shape, x.dtype) for name, x in real.items()
        }
        assert (abstract_vocabulary(mixed) is None) == (source.vocabulary is None)
