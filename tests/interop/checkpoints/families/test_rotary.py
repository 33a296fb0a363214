import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import ModelConfig
from bertjax.interop.checkpoints.families.rotary import Rotary, RotaryWindows, regular_pattern
from bertjax.interop.checkpoints.families.rules import Values

WINDOWS = RotaryWindows((160_000.0, 10_000.0), width=128, every=3)


def layers_of(every, first, count):
    return [every > 0 and layer % every == first for layer in range(count)]


@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_a_regular_pattern_is_found(count, every, data):
    is_global = layers_of(every, data.draw(st.integers(0, every - 1)), count)
    found = regular_pattern(is_global, usual=3)
    assert found is not None
    assert layers_of(*found, count) == is_global
    # The usual one is taken wherever it is right.
    for first in range(3):
        if layers_of(3, first, count) == is_global and any(is_global):
            assert found == (3, first)


@given(st.lists(st.booleans(), min_size=1, max_size=7))
def test_what_has_no_pattern_is_none(is_global):
    count = len(is_global)
    patterns = [layers_of(n, first, count) for n in range(count + 1) for first in range(max(n, 1))]
    assert (regular_pattern(is_global, usual=3) is not None) == (is_global in patterns)


@given(
    st.integers(1, 9),
    st.sampled_from([0, 8, 64]),
    st.integers(0, 5),
    st.floats(1, 1e6),
    st.just(0.0) | st.floats(1, 1e6),
    st.floats(1, 40),
    st.data(),
)
def test_windows_and_rotations_mean_the_same_after_a_way_out_and_in(
    layers, width, every, base, local, scaling, data
):
    config = ModelConfig(
        positions="rotary",
        num_hidden_layers=layers,
        local_attention=width,
        global_attn_every_n_layers=every,
        first_global_layer=data.draw(st.integers(0, max(every - 1, 0))),
        rotary_base=base,
        rotary_base_local=local,
        rotary_scaling=scaling,
    )
    values = {"num_hidden_layers": layers, **WINDOWS.write(config)}
    again = ModelConfig(
        positions="rotary",
        num_hidden_layers=layers,
        **WINDOWS.read(Values(values, "config.json", {})),
    )
    assert again.attends_globally == config.attends_globally
    assert (again.rotary_base, again.rotary_scaling) == (base, scaling)
    if not all(config.attends_globally):
        assert again.local_attention == width
        assert again.rotary_base_local == (local or base)


@pytest.mark.parametrize(
    "values, base, scaling",
    [
        ({}, 10_000.0, 1.0),
        ({"rope_theta": 5.0}, 5.0, 1.0),
        ({"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}}, 5.0, 2.0),
        ({"rope_parameters": {"rope_theta": 7.0}, "rope_theta": 5.0}, 7.0, 1.0),
        (
            {"rope_parameters": {"rope_theta": 7.0}, "rope_scaling": {"rope_type": "default"}},
            10_000.0,
            1.0,
        ),
    ],
)
def test_old_and_new_names_are_read_as_transformers_reads_them(values, base, scaling):
    transformers = pytest.importorskip("transformers")
    read = Rotary(10_000.0).read(Values(values, "config.json", {}))
    assert read == {"rotary_base": base, "rotary_scaling": scaling}
    theirs = transformers.EuroBertConfig(**values).rope_parameters
    assert (theirs["rope_theta"], theirs.get("factor", 1.0)) == (base, scaling)
