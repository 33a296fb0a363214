import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertjax.training.integrity.array_sums import BLOCK, ROW, WORD, _axis_weights, part_sums

DTYPES = [
    "float32",
    "int32",
    "bfloat16",
    "float16",
    "int8",
    "bool",
    "float64",
    "int64",
    "complex64",
]
SHAPES = st.lists(st.integers(1, 6), max_size=4).map(tuple)


def random_array(shape, dtype, seed=0):
    size = jnp.dtype(dtype).itemsize
    count = int(np.prod(shape, dtype=int)) * size
    content = np.random.default_rng(seed).integers(0, 256, count, np.uint8)
    if dtype == "bool":
        content &= 1
    return content.view(jnp.dtype(dtype)).reshape(shape)


def whole(array):
    return part_sums(array, (0,) * array.ndim)


@given(SHAPES, st.sampled_from(DTYPES), st.data())
def test_one_changed_bit_changes_the_first_sum(shape, dtype, data):
    array = random_array(shape, dtype)
    changed = array.copy()
    content = changed.reshape(-1).view(np.uint8)
    bit = 0 if dtype == "bool" else data.draw(st.integers(0, 7))
    content[data.draw(st.integers(0, content.size - 1))] ^= 1 << bit
    assert whole(array)[0] != whole(changed)[0]


@given(SHAPES.filter(bool), st.sampled_from(DTYPES), st.data())
def test_the_sums_of_parts_add_up_however_an_array_is_divided(shape, dtype, data):
    array = random_array(shape, dtype)
    axis = data.draw(st.integers(0, len(shape) - 1))
    cut = data.draw(st.integers(0, shape[axis]))
    first, second = np.split(array, [cut], axis)
    start = [0] * len(shape)
    start[axis] = cut
    total = part_sums(first, (0,) * len(shape)) + part_sums(second, start)
    assert (total == whole(array)).all()


@given(st.lists(st.integers(0, 63), min_size=2, max_size=2, unique=True), st.integers(0, 31))
def test_two_numbers_with_the_same_changed_bit_are_noticed(places, bit):
    """Both signs, for example: the topmost bits of two words cancel in a single sum."""
    array = random_array((8, 8), "float32")
    changed = array.copy()
    changed.reshape(-1).view(WORD)[places] ^= WORD.type(1 << bit)
    assert not (whole(array) == whole(changed)).all()


def test_numbers_that_changed_places_are_noticed():
    array = random_array((12, 64), "float32")
    for changed in (array[::-1], array[:, ::-1], array.reshape(64, 12).T.reshape(12, 64)):
        assert not (whole(array) == whole(changed)).any()


def test_arrays_of_any_form_have_the_sums_of_the_definition():
    for shape in [(BLOCK + 5,), (3, ROW, 2), (2, BLOCK // 2 + 1), (ROW, 1), ()]:
        array = random_array(shape, "float32")
        words = array.reshape(shape or (1,)).view(WORD)
        for table, values in enumerate((words, words >> 16)):
            weights = np.ones(words.shape, WORD)
            for axis, size in enumerate(words.shape):
                along = [1] * words.ndim
                along[axis] = size
                weights *= _axis_weights(axis, 0, size, table).reshape(along)
            assert whole(array)[table] == (values * weights).sum(dtype=WORD), (shape, table)


def test_the_sums_are_those_that_checkpoints_have():
    """Another rule of summing would call every checkpoint damaged that was saved before it."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert whole(array).tolist() == [4183818240, 3760999264]
    assert whole(array.astype(jnp.bfloat16)).tolist() == [1164638560, 0]
    assert whole(array.astype(np.float64)).tolist() == [3906207744, 4261213124]
