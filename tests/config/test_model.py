from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import ModelConfig


@given(layers=st.integers(1, 6), window=st.sampled_from([0, 2]), every=st.integers(0, 7))
def test_layers_alternate_where_some_attend_globally_and_some_locally(layers, window, every):
    model = ModelConfig(
        num_hidden_layers=layers, local_attention=window, global_attn_every_n_layers=every
    )
    assert model.alternates == (len(set(model.attends_globally)) > 1)
