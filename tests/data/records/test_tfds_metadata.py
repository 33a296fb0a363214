import random

import numpy as np
import pytest
from etils import epath

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.preparation.prepare import prepare
from bertjax.data.records.reader import PreparedRecords

SPLITS = ("train", "validation")
# What each changes is which features a row has, and whether both splits have the same.
CASES = {
    "pairs": {},
    "one sentence": {"sentence_objective": "none"},
    "packed": {"max_sequences_per_row": 3},
    "masked later": {"dynamic_masking": True},
    "words masked later": {"dynamic_masking": True, "word_segmenter": "jieba"},
}


@pytest.fixture(params=CASES)
def prepared(request, tmp_path):
    if "word_segmenter" in CASES[request.param]:
        pytest.importorskip("jieba")
    rng = random.Random(0)
    words = [f"word{i}" for i in range(300)]
    documents = [
        "\n".join(" ".join(rng.choices(words, k=8)) + "." for _ in range(6)) for _ in range(60)
    ]
    (tmp_path / "a.txt").write_text("\n\n".join(documents) + "\n")
    data = DataConfig(
        corpus=(str(tmp_path / "a.txt"),), max_seq_length=32, max_predictions_per_seq=5, validation_fraction=0.2,
        dupe_factor=2, num_shards=3, workers=1, **CASES[request.param],
    )  # fmt: skip
    folder = epath.Path(tmp_path / "out")
    return folder, prepare(Config(data=data, tokenizer=TokenizerConfig(vocab_size=400)), folder)


def test_tensorflow_datasets_reads_the_values_that_we_read(prepared):
    import tensorflow_datasets as tfds

    folder, manifest = prepared
    builder = tfds.builder_from_directory(folder)
    assert set(builder.info.splits) == set(SPLITS)
    for split in SPLITS:
        read = builder.as_dataset(
            split=split, read_config=tfds.ReadConfig(interleave_cycle_length=1), batch_size=-1
        )
        ours = PreparedRecords(folder, manifest, split)
        expected = ours.read(np.arange(len(ours)))
        assert read.keys() == manifest.schemas["train"].lengths.keys() <= expected.keys()
        for name, values in read.items():
            np.testing.assert_array_equal(values.numpy(), expected[name], err_msg=name)


def test_the_shards_lengths_and_the_features_are_the_manifests(prepared):
    import tensorflow_datasets as tfds

    folder, manifest = prepared
    info = tfds.builder_from_directory(folder).info
    for split in SPLITS:
        split_info, shards = info.splits[split], manifest.split(split)
        assert split_info.shard_lengths == [shard.records for shard in shards]
        assert split_info.num_bytes == sum(shard.bytes for shard in shards)
        assert [epath.Path(path).name for path in split_info.filepaths] == [
            shard.name for shard in shards
        ]
    assert {name: feature.shape for name, feature in info.features.items()} == {
        name: (length,) for name, length in manifest.schemas["train"].lengths.items()
    }
    floats = {name for name, feature in info.features.items() if feature.np_dtype == np.float32}
    assert floats == {"masked_lm_weights", "cls_weights"} & info.features.keys()
    assert all(info.features[name].np_dtype == np.int64 for name in info.features.keys() - floats)
