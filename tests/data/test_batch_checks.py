import numpy as np
import pytest

from bertjax.data.batch_checks import check_ids, inspect_batch
from bertjax.errors import UserError
from tests.factory import random_batch, small_config


def healthy():
    batch = random_batch(np.random.default_rng(0), 64)
    weights = np.zeros((64, 4), np.float32)
    weights[:, :2] = 1
    return batch | {"masked_lm_weights": weights, "input_mask": np.ones((64, 16), np.int32)}


def test_a_healthy_batch_gives_no_warning():
    assert inspect_batch(healthy(), small_config()) == []


@pytest.mark.parametrize("change,word", [
    ({"masked_lm_weights": np.ones((64, 4), np.float32)}, "25.0% of the tokens are to be predicted"),
    ({"next_sentence_labels": np.zeros((64, 1), np.int32)}, "100% of the rows have the same sentence label"),
    ({"input_ids": np.tile(np.arange(16, dtype=np.int32), (64, 1))}, "98% of the rows are duplicates"),
])  # fmt: skip
def test_odd_batches_are_warned_of(change, word):
    (warning,) = inspect_batch(healthy() | change, small_config())
    assert word in warning


def test_rows_of_padding_are_warned_of():
    batch = healthy()
    batch["input_mask"][3] = 0
    assert inspect_batch(batch, small_config()) == ["1 rows are all padding"]


@pytest.mark.parametrize("name", ["input_ids", "masked_lm_ids"])
@pytest.mark.parametrize("value", [64, -1])
def test_an_id_outside_the_vocabulary_is_named_with_its_row(name, value):
    batch = healthy()
    check_ids(batch, 64)
    batch[name][5, 2] = value
    with pytest.raises(UserError, match=rf"^{name}, row 5: found id {value}, expected 0 to 63"):
        check_ids(batch, 64)
