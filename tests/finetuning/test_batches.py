import hashlib
import itertools
import sys
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig
from bertjax.errors import UserError
from bertjax.finetuning import batches
from bertjax.parallel.hosts import process_row_indices
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.task import EncodedExamples

pytestmark = pytest.mark.quick
LONGEST, PAD, BUCKETS = 24, 7, (4, 8, 16)


def make_rows(items, seed=0, choices=1, longest=LONGEST):
    """Items that their first id and their targets tell apart."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, longest + 1, items * choices)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = draw.integers(0, 100, offsets[-1]).astype(np.int32)
    ids[offsets[:-1]] = np.arange(items * choices)
    return EncodedExamples(
        ids=ids,
        offsets=offsets,
        second_begins=draw.integers(0, lengths + 1).astype(np.int32),
        example_indices=np.arange(items),
        targets={
            "labels": np.arange(items, dtype=np.int32),
            "spans": np.arange(2 * items, dtype=np.float32).reshape(items, 2),
        },
        token_targets={"tags": -2 - np.arange(offsets[-1], dtype=np.int32)},
        choices=choices,
    )


def stream(
    rows_by_task, start=0, steps=100, rows=None, batch_size=4, seed=3, exponent=0.5, buckets=BUCKETS
):
    return batches.train_batches(
        rows_by_task,
        batches.BatchShape(batch_size, buckets, LONGEST, PAD),
        steps=steps,
        seed=seed,
        task_exponent=exponent,
        start=start,
        row_indices=np.arange(batch_size) if rows is None else rows,
    )


def evaluation(rows, batch_size=4, wanted=None, task=""):
    return batches.eval_batches(
        rows,
        batches.BatchShape(batch_size, BUCKETS, LONGEST, PAD),
        row_indices=np.arange(batch_size) if wanted is None else wanted,
        task=task,
    )


def seen(batch):
    """The items of a batch that are no fillers."""
    plain = batches.plain_batch(batch)
    return plain["labels"][plain["item_weights"] > 0]


def assert_same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


def plainly(rows, items, length):
    """A batch, row by row and id by id."""
    shape = (len(items), rows.choices, length)
    made = {
        name: np.full(shape, value)
        for name, value in [("input_ids", PAD), ("input_mask", 0), ("segment_ids", 0), ("tags", -1)]
    }
    made |= {
        "item_weights": np.zeros(len(items)),
        "labels": np.zeros(len(items)),
        "spans": np.zeros((len(items), 2)),
    }
    for at, item in enumerate(items):
        if item < 0:
            continue
        made["item_weights"][at] = 1
        made["labels"][at], made["spans"][at] = (
            rows.targets["labels"][item],
            rows.targets["spans"][item],
        )
        for choice in range(rows.choices):
            row = item * rows.choices + choice
            for place, source in enumerate(range(rows.offsets[row], rows.offsets[row + 1])):
                made["input_ids"][at, choice, place] = rows.ids[source]
                made["input_mask"][at, choice, place] = 1
                made["segment_ids"][at, choice, place] = place >= rows.second_begins[row]
                made["tags"][at, choice, place] = rows.token_targets["tags"][source]
    return {
        name: values[:, 0] if rows.choices == 1 and values.ndim == 3 else values
        for name, values in made.items()
    }


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 99), st.data())
def test_arrays_are_those_of_a_plain_loop(items, choices, seed, data):
    rows = make_rows(items, seed, choices)
    wanted = data.draw(st.lists(st.integers(-1, items - 1), min_size=1, max_size=6))
    length = data.draw(st.sampled_from([LONGEST, 32]))
    made, expected = (
        batches.make_batch(rows, np.array(wanted), length, pad_id=PAD),
        plainly(rows, wanted, length),
    )
    assert set(made) == set(expected)
    for name, values in made.items():
        assert values.dtype == (np.float32 if name in ("item_weights", "spans") else np.int32), name
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@given(st.integers(1, 700), st.integers(1, 9), st.integers(0, 2**40), st.integers(1, 3))
def test_each_item_comes_once_an_epoch_and_one_batch_at_most_is_short(
    items, batch_size, seed, choices
):
    rows = make_rows(items, items, choices)
    steps = batches.steps_per_epoch(rows, batch_size)
    epochs = [
        list(stream({"rte": rows}, start, start + steps, None, batch_size, seed))
        for start in (0, steps, 9 * steps)
    ]
    for epoch in epochs:
        assert len(epoch) == steps
        assert all(len(values) == batch_size for batch in epoch for values in batch.values())
        assert sorted(np.concatenate([seen(batch) for batch in epoch])) == list(range(items))
        assert [len(seen(batch)) for batch in epoch[:-1]] == [batch_size] * (steps - 1)
    if items > 12:
        assert (
            len({tuple(np.concatenate([seen(batch) for batch in epoch])) for epoch in epochs}) == 3
        )


@given(st.integers(1, 60), st.integers(1, 90), st.integers(0, 70), st.integers(0, 99))
def test_a_run_resumed_at_any_step_sees_what_it_would_have_seen(items, others, start, seed):
    rows_by_task = {
        "rte": make_rows(items),
        "cola": make_rows(others, 1),
        "swag": make_rows(7, 2, choices=3),
    }
    whole = stream(rows_by_task, steps=80, seed=seed)
    resumed = list(stream(rows_by_task, start, 80, seed=seed))
    assert len(resumed) == 80 - start
    for a, b in zip(itertools.islice(whole, start, None), resumed, strict=True):
        assert_same(a, b)


@given(st.integers(1, 200), st.integers(0, 99), st.data())
def test_the_processes_parts_make_up_the_global_batch(items, seed, data):
    rows, owner = (
        make_rows(items, seed, choices=2),
        np.array(data.draw(st.lists(st.integers(0, 2), min_size=8, max_size=8))),
    )
    parts = [np.flatnonzero(owner == process) for process in range(3)]

    def joined(pieces):
        made = {
            name: np.empty((8, *values.shape[1:]), values.dtype)
            for name, values in pieces[0].items()
        }
        for part, piece in zip(parts, pieces, strict=True):
            for name, values in piece.items():
                made[name][part] = values
        return made

    streams = [stream({"swag": rows}, 2, 40, part, 8) for part in parts]
    for whole, *pieces in zip(stream({"swag": rows}, 2, 40, None, 8), *streams, strict=True):
        assert_same(whole, joined(pieces))
    for (order, whole), *found in zip(
        evaluation(rows, 8), *(evaluation(rows, 8, part) for part in parts), strict=True
    ):
        assert all(np.array_equal(order, other) for other, _ in found)
        assert_same(whole, joined([piece for _, piece in found]))


def test_the_rows_of_a_mesh_are_those_of_the_whole_batch():
    mesh = make_mesh(MeshConfig(), jax.devices())
    rows = process_row_indices(mesh, 16)
    assert_same(
        next(stream({"rte": make_rows(50)}, batch_size=16)),
        next(stream({"rte": make_rows(50)}, rows=rows, batch_size=16)),
    )


@given(st.integers(1, 500), st.integers(1, 8), st.integers(0, 99))
def test_a_batch_is_as_short_as_its_longest_item_allows(items, batch_size, seed):
    rows = make_rows(items, seed, choices=2)
    for batch in stream(
        {"swag": rows}, 0, 2 * batches.steps_per_epoch(rows, batch_size), None, batch_size
    ):
        longest = int(batch["input_mask"].sum(axis=-1).max())
        assert batch["input_ids"].shape[-1] == min(
            (bucket for bucket in BUCKETS if bucket >= longest), default=LONGEST
        )


def test_no_batch_is_longer_than_the_longest_length_whatever_the_buckets():
    for buckets in [(), (8,), (8, 100), (LONGEST,)]:
        lengths = {
            batch["input_ids"].shape[-1]
            for batch in stream({"rte": make_rows(300)}, buckets=buckets)
        }
        assert lengths == ({8, LONGEST} if 8 in buckets else {LONGEST})


@given(st.integers(1, 900), st.integers(1, 16), st.integers(0, 99))
def test_padding_is_no_more_than_with_the_same_epoch_in_its_own_order(items, batch_size, seed):
    lengths = batches.item_lengths(make_rows(items, seed), LONGEST)
    shape = batches.BatchShape(batch_size, BUCKETS, LONGEST, PAD)

    def padded(epoch):
        return sum(batches.padded_length(lengths, some, shape) for some in epoch)

    steps = -(-items // batch_size)
    order = batches.permute(
        np.arange(items), items, (5, batches._word_of("rte"), 0, batches._ITEMS)
    )
    plain = [
        batches.fill_up(some, batch_size)
        for some in np.split(order, range(batch_size, items, batch_size))
    ]
    made = list(itertools.islice(batches.epoch_items(lengths, batch_size, 0, 5, "rte"), steps))
    assert sorted(np.concatenate(made)) == sorted(np.concatenate(plain))
    assert padded(made) <= padded(plain)


def test_most_of_the_padding_is_saved():
    """Lengths from 1 to 24, in batches of 32: unsorted nearly all are padded to 24."""
    rows = make_rows(20_000)
    epoch = list(
        stream(
            {"rte": rows}, 0, batches.steps_per_epoch(rows, 32), None, 32, buckets=range(1, LONGEST)
        )
    )
    assert len(rows.ids) / sum(batch["input_ids"].size for batch in epoch) > 0.97


def test_lengths_come_in_no_order():
    lengths = [
        len(batch["input_ids"][0])
        for batch in stream({"rte": make_rows(20_000)}, 0, 600, None, 32, buckets=range(LONGEST))
    ]
    assert abs(np.corrcoef(lengths[1:], lengths[:-1])[0, 1]) < 0.15
    assert abs(np.corrcoef(lengths, np.arange(600))[0, 1]) < 0.15


def test_no_more_than_64_batches_are_sorted_together():
    """So that opening at a step costs no more for a large task."""
    lengths = batches.item_lengths(make_rows(1280), LONGEST)
    order = batches.permute(np.arange(1280), 1280, (5, batches._word_of("rte"), 0, batches._ITEMS))
    made = np.array(list(itertools.islice(batches.epoch_items(lengths, 1, 0, 5, "rte"), 1280)))
    np.testing.assert_array_equal(np.sort(made.reshape(-1, 64)), np.sort(order.reshape(-1, 64)))


def test_a_small_tasks_batches_hold_other_items_each_epoch():
    """Were all its items sorted together, the batches of every epoch would be the same but for
    ties.
    """
    rows = make_rows(320)
    together = Counter()
    for batch in stream({"wnli": rows}, 0, 100, None, 32):
        together.update(itertools.combinations(sorted(seen(batch)), 2))
    assert max(together.values()) <= 8  # of 10 epochs
    assert len(together) > 4 * 10 * 32 * 31 / 2


def test_the_short_batch_is_a_sample_of_all_lengths():
    rows = make_rows(4 * 32 + 1)
    short = [
        int(seen(batch)[0])
        for batch in stream({"rte": rows}, 0, 1000, None, 32)
        if len(seen(batch)) == 1
    ]
    assert len(short) == 200
    assert len(set(short)) > 80
    assert np.diff(rows.offsets)[short].mean() == pytest.approx(np.diff(rows.offsets).mean(), abs=2)


@given(
    st.lists(st.integers(1, 400), min_size=2, max_size=4),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 999),
)
def test_tasks_are_drawn_in_proportion_to_a_power_of_their_size(sizes, exponent, seed):
    drawn = batches.draw_tasks(sizes, exponent, 4000, seed)
    shares = np.array(sizes) ** exponent / (np.array(sizes) ** exponent).sum()
    assert np.abs(np.bincount(drawn, minlength=len(sizes)) / 4000 - shares).max() < 0.05
    np.testing.assert_array_equal(batches.draw_tasks(sizes, exponent, 100, seed), drawn[:100])


def test_each_of_several_tasks_goes_through_its_own_epochs():
    rows_by_task = {"rte": make_rows(10), "cola": make_rows(55, 1)}
    found = {"rte": [], "cola": []}
    for batch in stream(rows_by_task, 0, 300):
        found[batches.task_of(batch)].append(seen(batch))
    for name, steps in (("rte", 3), ("cola", 14)):
        assert len(found[name]) > 3 * steps
        for begin in range(0, len(found[name]) - steps, steps):
            assert sorted(np.concatenate(found[name][begin : begin + steps])) == list(
                range(rows_by_task[name].items)
            )


def test_the_order_of_the_tasks_is_of_no_account():
    tasks = {"rte": make_rows(10), "cola": make_rows(55, 1)}
    for a, b in zip(stream(tasks), stream(dict(reversed(tasks.items()))), strict=True):
        assert_same(a, b)


def test_tasks_of_one_size_and_other_seeds_have_other_orders():
    rows = make_rows(50)
    firsts = [
        tuple(seen(next(stream({name: rows}, seed=seed))))
        for name in ("rte", "cola")
        for seed in (0, 1, 2**33)
    ]
    assert len(set(firsts)) == 6


@pytest.mark.parametrize("targets", [{}, {"labels": np.zeros(9, np.int32)}])
def test_a_batch_tells_its_task_and_its_targets_inside_jit_too(targets):
    rows = make_rows(9)
    rows = EncodedExamples(
        rows.ids, rows.offsets, rows.second_begins, rows.example_indices, targets
    )

    @jax.jit
    def step(batch):
        assert batches.task_of(batch) == "my-task"
        plain = batches.plain_batch(batch)
        assert set(plain) == {"input_ids", "input_mask", "segment_ids", "item_weights", *targets}
        return plain["item_weights"].sum()

    batch = next(stream({"my-task": rows}, start=2))
    assert set(batch) - {"input_ids", "input_mask", "segment_ids"} == {
        f"my-task/{name}" for name in ("item_weights", *targets)
    }
    assert step(batch) == 1


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 3), st.integers(0, 99))
def test_evaluation_has_each_item_once_the_longest_first(items, batch_size, choices, seed):
    rows = make_rows(items, seed, choices)
    put, last = np.full(items, -1), LONGEST
    found = list(evaluation(rows, batch_size))
    assert len(found) == batches.steps_per_epoch(rows, batch_size)
    for order, batch in found:
        assert (order.dtype, order.shape) == (np.int64, (batch_size,))
        np.testing.assert_array_equal(batch["item_weights"], order >= 0)
        put[order[order >= 0]] = batch["labels"][order >= 0]
        longest = batch["input_mask"].sum(axis=-1).reshape(batch_size, -1).max(axis=1)[order >= 0]
        assert (np.diff(longest) <= 0).all()
        assert longest[0] <= last
        last = longest[-1]
        assert batch["input_ids"].shape[-1] == min(
            (bucket for bucket in BUCKETS if bucket >= longest[0]), default=LONGEST
        )
    np.testing.assert_array_equal(put, np.arange(items))


def test_evaluation_of_a_named_task_is_named_as_in_training():
    rows = make_rows(3)
    ((_, named),) = evaluation(rows, task="rte")
    ((_, plain),) = evaluation(rows)
    assert set(named) == set(next(stream({"rte": rows})))
    assert_same(batches.plain_batch(named), plain)


def test_the_stream_is_the_same_as_ever():
    """Runs that stopped under an earlier version resume, in a process with another hash seed than
    theirs.
    """

    def rows(items, choices):
        lengths = 1 + np.arange(items * choices) * 7919 % LONGEST
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return EncodedExamples(
            np.arange(offsets[-1], dtype=np.int32),
            offsets,
            lengths // 2,
            np.arange(items),
            {},
            {},
            choices,
        )

    digest = hashlib.sha256()
    for batch in stream({"rte": rows(700, 1), "cola": rows(123, 1), "swag": rows(9, 3)}, 5, 150):
        for name in sorted(batch):
            digest.update(
                f"{name} {batch[name].dtype} {batch[name].shape}".encode() + batch[name].tobytes()
            )
    assert digest.hexdigest()[:16] == "40eb2db590930e6b"


def calls_of(function):
    """How many Python and C functions `function` calls: work that does not depend on the load."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


def test_opening_at_a_far_step_does_not_go_through_the_steps_before():
    rows_by_task = {"rte": make_rows(2490), "mnli": make_rows(400_000, 1)}

    def open_at(step):
        batch = next(stream(rows_by_task, step, 2_000_000, None, 32))
        assert batches.task_of(batch) in rows_by_task

    # About 290 calls each.
    assert calls_of(lambda: open_at(1_000_000)) < 2 * calls_of(lambda: open_at(0))


def test_a_batch_is_made_by_a_fixed_number_of_calls_not_item_by_item():
    def make(batch_size):
        rows = make_rows(300 * batch_size)
        made = stream({"rte": rows}, 0, 300, None, batch_size)
        assert sum(len(batch["input_ids"]) for batch in made) == 300 * batch_size

    # About 70 calls a batch: on an idle core 400,000 items a second in batches of 32.
    assert calls_of(lambda: make(256)) < 1.2 * calls_of(lambda: make(8))


def test_no_rows_and_too_long_rows_are_noticed_at_once():
    with pytest.raises(UserError, match="task cola: found no training rows, expected one or more"):
        stream({"rte": make_rows(3), "cola": make_rows(0)})
    with pytest.raises(ValueError, match="a row of .. ids, max_seq_length is 24"):
        stream({"rte": make_rows(300, longest=LONGEST + 6)})
