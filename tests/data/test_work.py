import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, DataConfig
from bertjax.data.work import bucket_of, buckets


def config(**data):
    return Config(data=DataConfig(**data))


def digests(seed, count):
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


@given(
    seed=st.integers(0, 2**31),
    fraction=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    sizes=st.tuples(st.integers(1, 50), st.integers(1, 50)),
)
def test_the_split_is_the_digests_alone_whatever_the_number_of_shards_or_the_company(seed, fraction, sizes):
    found = digests(seed, 200)
    held = []
    for size in sizes:
        options = config(validation_fraction=fraction, num_shards=size)
        splits = np.array([bucket.split == "validation" for bucket in buckets(options)])
        place = bucket_of(found, options)
        assert np.array_equal(bucket_of(found[50:90], options), place[50:90])
        held.append(splits[place])
    assert np.array_equal(held[0], held[1])
    assert held[0].mean() == pytest.approx(fraction, abs=0.18)


def test_documents_spread_evenly_over_the_shards_and_the_held_out_share_is_kept():
    options = config(validation_fraction=0.1, num_shards=20)
    counts = np.bincount(bucket_of(digests(0, 200_000), options), minlength=22)
    assert [bucket.split for bucket in buckets(options)] == ["train"] * 20 + ["validation"] * 2
    assert counts[20:].sum() / 200_000 == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 200_000))
    assert np.allclose(counts[:20], 9_000, rtol=0.06)
    assert np.allclose(counts[20:], 10_000, rtol=0.06)


def test_a_larger_held_out_share_keeps_what_a_smaller_one_held_out():
    found, options = digests(1, 10_000), config(validation_fraction=0.02, num_shards=4)
    larger = dataclasses.replace(options, data=dataclasses.replace(options.data, validation_fraction=0.2))
    assert set(np.flatnonzero(bucket_of(found, options) >= 4)) < set(np.flatnonzero(bucket_of(found, larger) >= 4))


def test_a_worker_imports_neither_tensorflow_nor_jax():
    code = "import sys, bertjax.data.work; print({'tensorflow', 'jax', 'flax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
