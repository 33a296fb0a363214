import pytest

from bertjax.config import ModelConfig
from bertjax.errors import UserError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"local_attention": 5}, "model.local_attention: found 5, expected an even number"),
        ({"rotary_scaling": 0.5}, "model.rotary_scaling: found 0.5, expected 1 or more"),
        ({"num_key_value_heads": 5}, "model.num_key_value_heads: found 5, expected a divisor"),
        ({"first_global_layer": 3}, "model.first_global_layer: found 3, expected less than"),
        ({"norm_type": "rms_norm"}, "model.biases: found norm, expected none"),
        ({"first_norm": False}, "model.first_norm: found False, expected true with norm_place"),
        ({"final_norm": True}, "model.final_norm: found True, expected false with norm_place"),
        ({"biases": ("norm", "norm")}, "expected each once"),
        ({"relative_positions": 3}, "model.relative_positions: found 3, expected 0, or 7"),
        (
            {"relative_positions": 16, "local_attention": 4},
            "model.local_attention: found 4, expected 0 with model.relative_positions",
        ),
        (
            {"pooler": "none", "pooler_norm": True},
            "model.pooler_norm: found True, expected false with pooler none",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused_in_one_line(fields, message):
    with pytest.raises(UserError) as raised:
        ModelConfig(**fields)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
