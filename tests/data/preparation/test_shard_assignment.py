import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, DataConfig
from bertjax.data.preparation.shard_assignment import POOL_TOKENS, RANGE_BYTES, plan_shards


def plan(text_bytes=0, **data):
    return plan_shards(Config(data=DataConfig(**data)), text_bytes)


def splits_of(digests, **data):
    """Return which documents are held out, by the range that each falls in."""
    shard_plan = plan(**data)
    split = [
        shard.split == "validation" for shard in shard_plan.shards() for _ in range(shard.ranges)
    ]
    return np.array(split)[shard_plan.ranges_of(digests)]


def digests(seed, count):
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


@given(
    seed=st.integers(0, 2**31),
    fraction=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    sizes=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    text_bytes=st.integers(0, 1 << 34),
)
def test_the_split_is_the_digests_alone_whatever_the_shards_the_ranges_or_the_company(
    seed, fraction, sizes, text_bytes
):
    all_digests = digests(seed, 200)
    held_out = []
    for size, amount in zip(sizes, (0, text_bytes), strict=True):
        shard_plan = plan(amount, validation_fraction=fraction, num_shards=size)
        range_numbers = shard_plan.ranges_of(all_digests)
        assert range_numbers.min() >= 0
        assert range_numbers.max() < shard_plan.ranges
        assert np.array_equal(shard_plan.ranges_of(all_digests[50:90]), range_numbers[50:90])
        held_out.append(
            splits_of(all_digests, text_bytes=amount, validation_fraction=fraction, num_shards=size)
        )
        assert np.array_equal(held_out[-1], shard_plan.held_out(all_digests))
    assert np.array_equal(held_out[0], held_out[1])
    assert held_out[0].mean() == pytest.approx(fraction, abs=0.18)


@given(
    shards=st.integers(1, 60),
    text_bytes=st.integers(0, 1 << 36),
    fraction=st.sampled_from([0.0, 0.02, 0.3]),
)
def test_shards_own_all_ranges_once_and_a_range_is_bounded(shards, text_bytes, fraction):
    shard_plan = plan(text_bytes, num_shards=shards, validation_fraction=fraction)
    owned = [
        number
        for shard in shard_plan.shards()
        for number in range(shard.first, shard.first + shard.ranges)
    ]
    assert owned == list(range(shard_plan.ranges))
    assert text_bytes / (shards * shard_plan.ranges_per_shard) <= RANGE_BYTES


def test_documents_spread_evenly_over_the_shards_and_the_held_out_share_is_kept():
    shard_plan = plan(RANGE_BYTES * 40, validation_fraction=0.1, num_shards=20)
    assert shard_plan.ranges_per_shard == 2
    counts = np.bincount(shard_plan.ranges_of(digests(0, 200_000)) // 2, minlength=22)
    assert [shard.split for shard in shard_plan.shards()] == ["train"] * 20 + ["validation"] * 2
    assert counts[20:].sum() / 200_000 == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 200_000))
    assert np.allclose(counts[:20], 9_000, rtol=0.06)
    assert np.allclose(counts[20:], 10_000, rtol=0.06)


def test_a_larger_held_out_share_keeps_what_a_smaller_one_held_out():
    all_digests = digests(1, 10_000)
    small, large = (
        splits_of(all_digests, validation_fraction=share, num_shards=4) for share in (0.02, 0.2)
    )
    assert not (small & ~large).any()
    assert small.sum() < large.sum()


@given(
    shards=st.integers(1, 60),
    text_bytes=st.integers(0, 1 << 32),
    fraction=st.sampled_from([0.0, 0.02, 0.3]),
    tokens=st.integers(0, 1 << 32),
)
def test_pools_divide_each_split_and_have_a_bounded_number_of_tokens(
    shards, text_bytes, fraction, tokens
):
    shard_plan = plan(text_bytes, num_shards=shards, validation_fraction=fraction).pooled(tokens)
    pools = [shard_plan.pool_of(number) for number in range(shard_plan.ranges)]
    for number, pool in enumerate(pools):
        assert number in pool
        assert all(pools[other] == pool for other in pool)
        assert (
            shard_plan.split_of(number)[0] <= pool[0] <= pool[-1] <= shard_plan.split_of(number)[-1]
        )
        of_range = tokens / shard_plan.ranges
        # A range that has more by itself is a pool of its own.
        assert len(pool) == 1 or len(pool) * of_range <= 2 * POOL_TOKENS
        assert pool == shard_plan.split_of(number) or len(pool) * of_range >= POOL_TOKENS / 2
