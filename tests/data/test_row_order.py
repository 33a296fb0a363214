import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data.order import BLOCK, quotas_of
from bertjax.data.phase_order import Part, readings
from bertjax.data.row_order import RowOrder

BATCH = 4
CORPORA = st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True)


@settings(max_examples=15)
@given(
    phases=st.lists(st.tuples(CORPORA, st.integers(1, 12)), min_size=1, max_size=4),
    sizes=st.tuples(*[st.integers(20, 400)] * 3),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_the_batches_of_a_record_are_those_that_a_scan_finds(phases, sizes, seed, data):
    size_of = dict(zip("abc", sizes, strict=True))
    parts, begin = [], 0
    for names, steps in phases:
        quotas = quotas_of([1.0 + index for index in range(len(names))])
        parts.append(Part(begin, steps * BATCH, tuple(names), tuple(quotas.tolist())))
        begin += steps
    for part, reading in zip(parts, readings(parts), strict=True):
        own = tuple(size_of[name] for name in part.corpora)
        order = RowOrder(own, part.quotas, reading, BATCH, seed)
        end = part.begin + part.rows // BATCH
        corpus = data.draw(st.integers(0, len(own) - 1))
        read = []
        for step in range(part.begin, end):
            corpora, records = order.batch(step)
            read += [(step, int(record)) for record in records[corpora == corpus]]
        some = st.sampled_from(sorted({record for _, record in read} | {0, own[corpus] - 1}))
        wanted = np.unique(data.draw(st.lists(some, max_size=9)))
        expected = [each for each in read if each[1] in wanted]
        steps, found = order.batches_with(corpus, wanted.astype(np.int64), end)
        assert list(zip(steps.tolist(), found.tolist(), strict=True)) == expected


def test_it_holds_over_the_end_of_a_block_of_a_mixture():
    quotas = tuple(quotas_of([1.0, 3.0]).tolist())
    (reading,) = readings([Part(0, 2 * BLOCK, ("a", "b"), quotas)])
    order = RowOrder((3000, 20_000), quotas, reading, 1024, 3)
    steps, found = order.batches_with(1, np.array([2]), 2 * BLOCK // 1024)
    count = 0
    for step in range(2 * BLOCK // 1024):
        corpora, records = order.batch(step)
        here = np.count_nonzero((corpora == 1) & (records == 2))
        assert here == np.count_nonzero(steps == step)
        count += here
    assert count == len(found) >= 4
