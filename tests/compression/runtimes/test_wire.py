"""Messages arrive as they were sent, and a closed end is told."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bertjax.compression.runtimes import wire

ARRAY = arrays.arrays(
    st.sampled_from([np.int32, np.float32, np.float64]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@given(st.dictionaries(st.text(max_size=5), ARRAY, max_size=3), st.integers(0, 2**31))
def test_a_message_arrives_as_it_was_sent_and_a_part_of_it_is_the_end(sent, number):
    file = io.BytesIO()
    wire.send(file, {"number": number}, sent)
    file.seek(0)
    header, received = wire.receive(file)
    assert header == {"number": number}
    assert list(received) == list(sent)
    for name, array in sent.items():
        assert received[name].dtype == array.dtype
        np.testing.assert_array_equal(received[name], array)
    with pytest.raises(EOFError):
        wire.receive(file)
    content = file.getvalue()
    with pytest.raises(EOFError):
        wire.receive(io.BytesIO(content[: number % len(content)]))


def test_objects_are_not_sent():
    with pytest.raises(TypeError, match="x: an array of object, not of numbers"):
        wire.send(io.BytesIO(), {}, {"x": np.array([{}])})
