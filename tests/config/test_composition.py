from bertjax.config import ModelConfig, family
from bertjax.config.composition import composition


def test_a_model_of_berts_parts_has_nothing_to_say_and_others_name_each_part():
    assert composition(ModelConfig(hidden_size=32, num_attention_heads=4)) == []
    assert composition(family("modernbert")) == [
        "positions rotary",
        "rotary_base 160000",
        "rotary_base_local 10000",
        "local_attention 128",
        "norm_place before",
        "first_norm false",
        "final_norm true",
        "feed_forward gated",
        "biases mlm",
    ]
    assert composition(ModelConfig(first_global_layer=1)) == []
