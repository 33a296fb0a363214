"""The parts of a model in a few words: the fields in which its layers differ from those of BERT."""

from dataclasses import fields

from bertjax.config.layers import LayerConfig
from bertjax.config.model import ModelConfig

# These say nothing about what a layer computes from its parts.
NOT_PARTS = ("num_attention_heads", "dropout_places")
# These pattern the layers, which they do with local attention alone.
OF_LOCAL = ("global_attn_every_n_layers", "first_global_layer", "rotary_base_local")


def composition(model: ModelConfig) -> list[str]:
    """Return "name value" of each field in which the layers of `model` differ from BERT's.

    >>> from bertjax.config import ModelConfig
    >>> composition(ModelConfig(positions="rotary", rotary_base=1000.0, biases=()))
    ['positions rotary', 'rotary_base 1000', 'biases none']
    """
    parts = []
    for field in fields(LayerConfig):
        value = getattr(model, field.name)
        is_read = model.local_attention > 0 or field.name not in OF_LOCAL
        if field.name not in NOT_PARTS and is_read and value != field.default:
            parts.append(f"{field.name} {_shown(value)}")
    return parts


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, tuple):
        return "+".join(value) or "none"
    return str(value)
