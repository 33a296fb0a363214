from hypothesis import given
from hypothesis import strategies as st

from bertjax.inference.lengths import padded_length


@given(st.integers(2, 600), st.integers(2, 600))
def test_padded_lengths_are_few_and_fit(length, longest):
    length = min(length, longest)
    padded = padded_length(length, longest)
    assert length <= padded <= longest
    assert padded < max(1.5 * length, length + 8)
    assert len({padded_length(n, longest) for n in range(2, longest + 1)}) <= 15
