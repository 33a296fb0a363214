"""Properties of masks, held for both makers: `mask_rows` in NumPy, `mask_batch` in JAX."""

import dataclasses
from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bertjax.config import DataConfig
from bertjax.masking import dynamic as dynamic_masks
from bertjax.masking import static as static_masks
from bertjax.masking.selection import UNIT_LENGTHS, Vocabulary, mask_tokens, unit_starts

MASKINGS = ("token", "whole_word", "ngram", "span")
MASK = 4
# Special ids in the middle and at the end: none may be drawn as a random token.
VOCABULARY = Vocabulary(MASK, (0, 3, MASK, 9, 39), 40)
ORDINARY = [i for i in range(VOCABULARY.size) if i not in VOCABULARY.special_ids]
# The p-value below which a statistic is taken to be wrong. The seeds are fixed, so a test that
# passed once does not fail by chance later.
UNLIKELY = 1e-6


def config(masking, probability=0.15, max_predictions=20):
    """Settings of masking. Masks follow the length of the given rows, not `max_seq_length`."""
    length = max(8, max_predictions + 1)
    return DataConfig(
        masking=masking,
        mlm_probability=probability,
        max_predictions_per_seq=max_predictions,
        max_seq_length=length,
    )


def random_rows(seed, count, length, *, specials=0.2, starts=0.6):
    """Rows of random ids, some padded, with special ids and beginnings of words at random."""
    rng = np.random.default_rng(seed)
    shape = (count, length)
    ids = np.where(
        rng.random(shape) < specials,
        rng.choice(VOCABULARY.special_ids, shape),
        rng.choice(ORDINARY, shape),
    )
    real = rng.integers(0, length + 1, (count, 1)) if specials else length
    mask = np.arange(length)[None, :] < real
    begins = rng.random(shape) < starts
    return {
        "input_ids": ids.astype(np.int32),
        "input_mask": mask.astype(np.int32),
        "word_starts": begins,
    }


def maskable_of(batch):
    return (batch["input_mask"] > 0) & ~np.isin(batch["input_ids"], VOCABULARY.special_ids)


def with_numpy(batch, options, seed=0):
    return static_masks.mask_rows(batch, options, VOCABULARY, np.random.default_rng(seed))


@cache
def _jitted(options):
    return jax.jit(lambda batch, key: dynamic_masks.mask_batch(batch, options, VOCABULARY, key))


def with_jax(batch, options, seed=0):
    starts = {"word_starts": batch["word_starts"].astype(np.int32)}
    return jax.device_get(_jitted(options)(batch | starts, jax.random.key(seed)))


BACKENDS = {"numpy": with_numpy, "jax": with_jax}
both = pytest.mark.parametrize("mask", BACKENDS.values(), ids=BACKENDS)


def words_of(maskable, starts):
    """The words of a row, each a list of its columns."""
    words = []
    for column, (ordinary, begins) in enumerate(zip(maskable, starts, strict=True)):
        if ordinary and (begins or not column or not maskable[column - 1]):
            words.append([column])
        elif ordinary:
            words[-1].append(column)
    return words


def limit_of(available, options):
    """How many of a row's ordinary tokens may be chosen."""
    return min(
        max(1, round(options.mlm_probability * available)),
        options.max_predictions_per_seq,
        available,
    )


def check_masks(batch, masked, options):
    """Check everything that holds of the masks of any single row."""
    ids, shown = batch["input_ids"], masked["input_ids"]
    assert (
        shown.dtype
        == masked["masked_lm_ids"].dtype
        == masked["masked_lm_positions"].dtype
        == np.int32
    )
    assert masked["masked_lm_weights"].dtype == np.float32
    assert masked["masked_lm_weights"].shape == (len(ids), options.max_predictions_per_seq)
    for i, maskable in enumerate(maskable_of(batch)):
        weights = masked["masked_lm_weights"][i]
        count = int(weights.sum())
        assert weights.tolist() == [1.0] * count + [0.0] * (len(weights) - count)
        positions = masked["masked_lm_positions"][i][:count]
        assert (np.diff(positions) > 0).all()
        assert maskable[positions].all()
        assert np.array_equal(masked["masked_lm_ids"][i][:count], ids[i][positions])
        assert not masked["masked_lm_positions"][i][count:].any()
        assert not masked["masked_lm_ids"][i][count:].any()

        assert np.isin(shown[i][positions], [MASK, *ORDINARY]).all()
        others = np.delete(np.arange(ids.shape[1]), positions)
        assert np.array_equal(shown[i][others], ids[i][others])

        limit = limit_of(int(maskable.sum()), options)
        assert count <= limit
        chosen = set(positions.tolist())
        if options.masking == "token":
            assert count == limit
            continue
        words = words_of(maskable, batch["word_starts"][i])
        assert all(chosen.issuperset(word) or chosen.isdisjoint(word) for word in words)
        if options.masking == "whole_word":
            assert all(len(word) > limit - count for word in words if chosen.isdisjoint(word)), (
                "one more word fits"
            )


@pytest.mark.parametrize("masking", MASKINGS)
@given(
    seed=st.integers(0, 2**31),
    length=st.integers(1, 60),
    probability=st.floats(0.05, 0.5),
    max_predictions=st.integers(2, 80),
    specials=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    starts=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_numpy_chooses_whole_words_of_ordinary_tokens_within_the_limits(
    masking, seed, length, probability, max_predictions, specials, starts
):
    batch = random_rows(seed, 12, length, specials=specials, starts=starts)
    options = config(masking, probability, max_predictions)
    check_masks(batch, with_numpy(batch, options, seed), options)


@pytest.fixture(scope="module", params=MASKINGS)
def masking(request):
    """A kind of masking, compiled first: Hypothesis slows down every line that it watches."""
    # As around every test: with another setting the tests would compile it again.
    with jax.numpy_rank_promotion("raise"):
        with_jax(random_rows(0, 12, 40), config(request.param, 0.25, 6))
        _compared(request.param)(*random_rows(0, 12, 40).values(), *_numbers(request.param, 0))
    return request.param


@given(
    seed=st.integers(0, 2**31),
    specials=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    starts=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_jax_chooses_whole_words_of_ordinary_tokens_within_the_limits(
    masking, seed, specials, starts
):
    batch = random_rows(seed, 12, 40, specials=specials, starts=starts)
    options = config(masking, 0.25, 6)
    check_masks(batch, with_jax(batch, options, seed), options)


@both
@pytest.mark.parametrize("masking", MASKINGS)
def test_a_row_without_ordinary_tokens_predicts_nothing_and_is_unchanged(mask, masking):
    batch = random_rows(0, 12, 40)
    batch["input_ids"][0] = 3
    batch["input_mask"][1] = 0
    masked = mask(batch, config(masking, 0.25, 6))
    assert not masked["masked_lm_weights"][:2].any()
    assert masked["masked_lm_weights"][2:].any()
    assert np.array_equal(masked["input_ids"][:2], batch["input_ids"][:2])


@both
@pytest.mark.parametrize("masking", ["token", "span"])
@pytest.mark.parametrize(
    "shares", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.2, 0.3)]
)
def test_chosen_tokens_become_mask_or_random_or_stay_in_the_shares_that_are_asked_for(
    mask, masking, shares
):
    batch = random_rows(0, 200, 40, specials=0.0)
    options = dataclasses.replace(config(masking, 0.5, 20), mask_shares=shares)
    masked = mask(batch, options)
    used = masked["masked_lm_weights"] > 0
    shown = np.take_along_axis(masked["input_ids"], masked["masked_lm_positions"], 1)[used]
    originals = masked["masked_lm_ids"][used]
    is_mask = shown == MASK
    # A random id is the original one by chance, once in 35 times.
    stays = np.mean(~is_mask & (shown == originals))
    expected = shares[2] + shares[1] / len(ORDINARY)
    # Of 4,000 tokens, in spans of 3.8 tokens on average that are drawn together: at most 1,000
    # draws or so, of which a share has a deviation of 0.016.
    assert np.mean(is_mask) == pytest.approx(shares[0], abs=0 if shares[0] in (0, 1) else 0.07)
    assert stays == pytest.approx(expected, abs=0 if shares[1] == 0 and 1 in shares else 0.07)


def drawn(seed):
    """A source of uniform numbers that repeats, call for call, for the same seed."""
    rng = np.random.default_rng(seed)
    return lambda shape: rng.random(shape, np.float32)


# More predictions than the rows have tokens.
SAME = {
    "vocabulary": VOCABULARY,
    "mlm_probability": 0.5,
    "max_predictions": 50,
    "shares": (0.8, 0.1, 0.1),
}


@given(
    seed=st.integers(0, 2**31),
    specials=st.sampled_from([0.0, 0.2, 0.5]),
    starts=st.sampled_from([0.3, 1.0]),
)
def test_numpy_and_jax_make_the_same_masks_from_the_same_numbers(masking, seed, specials, starts):
    batch = random_rows(seed, 12, 40, specials=specials, starts=starts)
    features = (batch["input_ids"], batch["input_mask"], batch["word_starts"])
    masked = mask_tokens(
        static_masks.NUMPY, *features, uniform=drawn(seed), **SAME, masking=masking
    )
    again = _compared(masking)(*map(jnp.asarray, features), *_numbers(masking, seed))
    for name, values in masked.items():
        assert np.array_equal(values, again[name]), name


@cache
def _shapes(masking):
    """The shapes of the uniform numbers that masking draws, in order."""
    shapes, features = [], random_rows(0, 12, 40)

    def uniform(shape):
        shapes.append(shape)
        return np.zeros(shape, np.float32)

    mask_tokens(static_masks.NUMPY, *features.values(), uniform=uniform, **SAME, masking=masking)
    return shapes


def _numbers(masking, seed):
    return list(map(drawn(seed), _shapes(masking)))


@cache
def _compared(masking):
    def masked(ids, mask, starts, *numbers):
        remaining = iter(numbers)
        options = {"uniform": lambda shape: next(remaining)}
        return mask_tokens(dynamic_masks.JAX, ids, mask, starts, **options, **SAME, masking=masking)

    return jax.jit(masked)


@pytest.mark.parametrize("masking", ["ngram", "span"])
@given(
    seed=st.integers(0, 2**31),
    specials=st.sampled_from([0.0, 0.1, 0.5]),
    starts=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_units_are_runs_of_whole_words_and_are_taken_whole_while_they_fit(
    masking, seed, specials, starts
):
    batch = random_rows(seed, 12, 60, specials=specials, starts=starts)
    maskable, options = maskable_of(batch), config(masking, 0.3, 14)
    # The first numbers drawn are those of the units: the same generator gives them again.
    begins = unit_starts(static_masks.NUMPY, maskable, batch["word_starts"], masking, drawn(seed))
    masked = with_numpy(batch, options, seed)
    for i, row in enumerate(maskable):
        units = words_of(row, begins[i])
        words = words_of(row, batch["word_starts"][i])
        first = {word[0] for word in words}
        assert all(unit[0] in first for unit in units)
        assert all(len(first & set(unit)) <= len(UNIT_LENGTHS[masking]) for unit in units)

        used = masked["masked_lm_weights"][i] > 0
        chosen = set(masked["masked_lm_positions"][i][used].tolist())
        left = limit_of(int(row.sum()), options) - len(chosen)
        for unit in units:
            assert chosen.issuperset(unit) or (chosen.isdisjoint(unit) and len(unit) > left)
            if masking == "span" and chosen.issuperset(unit):
                assert len(set((masked["input_ids"][i][unit] == MASK).tolist())) == 1


@both
@pytest.mark.parametrize("masking", ["token", "span"])
def test_the_papers_shares_of_mask_random_and_true_tokens_hold(mask, masking):
    batch = random_rows(1, 3000, 128, specials=0.0, starts=1.0)
    masked = mask(batch, config(masking))
    used = masked["masked_lm_weights"] > 0
    assert used.sum() / used.shape[0] == pytest.approx(19, abs=0 if masking == "token" else 0.2)
    shown = np.take_along_axis(masked["input_ids"], masked["masked_lm_positions"], 1)[used]
    true = masked["masked_lm_ids"][used]
    # All tokens of a span share one draw: up to 10 tokens count as one sample.
    tolerance = 5 * np.sqrt(0.25 / len(true)) * (np.sqrt(10) if masking == "span" else 1)
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=tolerance)
    assert (shown == true).mean() == pytest.approx(0.1 + 0.1 / len(ORDINARY), abs=tolerance)
    random_ids = shown[(shown != MASK) & (shown != true)]
    assert (
        stats.chisquare(np.bincount(random_ids, minlength=VOCABULARY.size)[ORDINARY]).pvalue
        > UNLIKELY
    )
    assert set(random_ids.tolist()) == set(ORDINARY)


@both
def test_tokens_of_a_span_share_one_replacement_and_each_token_of_an_ngram_has_its_own(mask):
    """Each row is one word of 16 tokens between special ones: nothing else can be chosen."""
    ids = np.full((2000, 18), 7, np.int32)
    ids[:, [0, -1]] = 3
    batch = {
        "input_ids": ids,
        "input_mask": np.ones_like(ids),
        "word_starts": np.zeros(ids.shape, bool),
    }
    batch["word_starts"][:, 1] = True
    masks, kept = {}, {}
    for masking in ("span", "ngram"):
        masked = mask(batch, config(masking, 1.0, 20))
        assert (masked["masked_lm_weights"].sum(axis=1) == 16).all()
        masks[masking] = (masked["input_ids"][:, 1:-1] == MASK).sum(axis=1)
        kept[masking] = (masked["input_ids"][:, 1:-1] == 7).sum(axis=1)
    assert set(masks["span"].tolist()) == {0, 16}
    assert stats.binomtest(int((masks["span"] == 16).sum()), 2000, 0.8).pvalue > UNLIKELY
    assert stats.binomtest(int((kept["span"] == 16).sum()), 2000, 0.1).pvalue > UNLIKELY
    # Only a few random tokens are the true one by chance.
    assert not ((kept["span"] > 8) & (kept["span"] < 16)).any()
    # The variance of 16 independent draws.
    assert masks["ngram"].var() == pytest.approx(16 * 0.8 * 0.2, rel=0.2)


@both
def test_every_position_is_equally_likely_to_be_chosen(mask):
    masked = mask(random_rows(2, 20_000, 32, specials=0.0), config("token", 0.15, 5))
    counts = np.bincount(
        masked["masked_lm_positions"][masked["masked_lm_weights"] > 0], minlength=32
    )
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_the_lengths_of_units_are_the_papers():
    assert UNIT_LENGTHS["ngram"] == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert len(UNIT_LENGTHS["span"]) == 10
    assert sum(UNIT_LENGTHS["span"]) == pytest.approx(1)
    assert all(
        later / earlier == pytest.approx(0.8) for earlier, later in pairwise(UNIT_LENGTHS["span"])
    )
    assert sum(n * p for n, p in enumerate(UNIT_LENGTHS["span"], 1)) == pytest.approx(3.8, abs=0.01)


@pytest.mark.parametrize("masking", ["ngram", "span"])
def test_tiles_have_the_papers_lengths_and_begin_at_every_position_equally_often(masking):
    every = np.ones((20_000, 64), bool)
    begins = unit_starts(static_masks.NUMPY, every, every, masking, drawn(0))
    row, column = np.nonzero(begins)
    lengths = np.diff(row * every.shape[1] + column)
    # None of these is cut off by the row's end.
    lengths = lengths[(column[:-1] >= 1) & (column[:-1] <= 50)]
    expected = np.array(UNIT_LENGTHS[masking]) * len(lengths)
    assert (
        stats.chisquare(np.bincount(lengths, minlength=len(expected) + 1)[1:], expected).pvalue
        > UNLIKELY
    )

    mean = sum(n * p for n, p in enumerate(UNIT_LENGTHS[masking], 1))
    shares = begins.mean(axis=0)[1:-1]  # a row's ends are always edges
    assert shares == pytest.approx(1 / mean, abs=5 * np.sqrt(0.25 / len(every)))


@pytest.mark.parametrize("masking,mean", [("ngram", 18 / 11), ("span", 3.8)])
def test_long_rows_show_runs_of_the_papers_mean(masking, mean):
    batch = random_rows(3, 64, 2000, specials=0.0, starts=1.0)
    masked = with_numpy(batch, config(masking, 0.02, 60))
    positions, used = masked["masked_lm_positions"], masked["masked_lm_weights"] > 0
    runs = (used[:, 1:] & (np.diff(positions, axis=1) > 1)).sum() + used[:, 0].sum()
    # Chosen runs that touch are counted as one, hence the tolerance.
    assert used.sum() / runs == pytest.approx(mean, rel=0.1)
