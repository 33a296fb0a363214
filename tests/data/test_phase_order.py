import numpy as np
import pytest

from bertjax.data.order import (
    BLOCK,
    batch_record_numbers,
    mixture_record_numbers,
    quotas_of,
    whole_run,
)
from bertjax.data.phase_order import Part, readings

WHOLE = (BLOCK,)


def part(begin, rows, corpora="a", quotas=WHOLE):
    return Part(begin, rows, tuple(corpora), tuple(quotas))


def test_the_first_phase_reads_as_a_run_without_phases():
    assert readings([part(0, 80)]) == [whole_run(1)]
    assert readings([part(0, 80, "ab", quotas_of([1, 3]))]) == [whole_run(2)]


def test_a_corpus_that_several_phases_read_is_read_on():
    first, second, third = readings([part(0, 80), part(10, 40, "b"), part(20, 64)])
    assert (second.places[0].taken, third.places[0].taken) == (0, 80)
    rows = [first.rows(8, step) for step in range(10)] + [
        third.rows(16, step) for step in range(20, 24)
    ]
    read = [batch_record_numbers(144, each, 5, first.places[0]) for each in rows[:10]]
    read += [batch_record_numbers(144, each, 5, third.places[0]) for each in rows[10:]]
    assert sorted(np.concatenate(read)) == list(range(144))


@pytest.mark.parametrize("corpora,quotas", [("a", WHOLE), ("ab", tuple(quotas_of([1, 3])))])
def test_phases_of_the_same_data_read_as_one(corpora, quotas):
    one = readings([part(0, 160, corpora, quotas)])[0]
    two = readings([part(0, 80, corpora, quotas), part(10, 80, corpora, quotas)])[1]
    assert np.array_equal(one.rows(8, 13), two.rows(8, 13))
    assert one.places == two.places


def test_after_a_mixture_its_corpora_go_on_with_the_next_block():
    quotas = quotas_of([1, 3])
    other = quotas_of([1, 1])
    first, second = readings([part(0, 80, "ab", quotas), part(10, 80, "ba", other)])
    assert [place.taken for place in second.places] == [quotas[1], quotas[0]]
    # Each keeps the order of its records.
    assert [place.key for place in second.places] == [first.places[1].key, first.places[0].key]
    which, records = mixture_record_numbers(
        [10**6, 10**6], other, second.rows(8, 12), 5, second.places
    )
    before = mixture_record_numbers([10**6, 10**6], quotas, np.arange(80), 5, first.places)
    for corpus, earlier in ((0, 1), (1, 0)):
        assert not set(records[which == corpus]) & set(before[1][before[0] == earlier])


def test_a_mixture_that_names_a_corpus_twice_reads_it_in_two_orders():
    (reading,) = readings([part(0, 80, "aa", quotas_of([1, 1]))])
    assert reading.places[0].key != reading.places[1].key
