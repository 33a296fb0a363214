"""The table of all families that are read and written."""

from collections.abc import Mapping
from typing import Any

from bertjax.config import ModelConfig, from_dict
from bertjax.config.families import FAMILIES as PRESETS
from bertjax.errors import UserError
from bertjax.interop.checkpoints.families import (
    bert,
    deberta,
    distilbert,
    eurobert,
    gpt_bert,
    modernbert,
    neobert,
    nomic_gte,
    ultrabert,
)
from bertjax.interop.checkpoints.families.family import Family
from bertjax.interop.checkpoints.families.rules import Values

_ALL = (
    bert.BERT,
    bert.ROBERTA,
    bert.ELECTRA,
    bert.ALBERT,
    distilbert.DISTILBERT,
    bert.XLM_ROBERTA,
    modernbert.MODERNBERT,
    eurobert.EUROBERT,
    ultrabert.ULTRABERT,
    nomic_gte.NOMIC_BERT,
    nomic_gte.GTE,
    deberta.DEBERTA,
    neobert.NEOBERT,
    gpt_bert.GPT_BERT,
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}
"""From `model_type` to the family."""
DECODERS: Mapping[str, Family] = {
    family.name: family
    for family in (
        bert.BERT_DECODER,
        bert.ROBERTA_DECODER,
        bert.ELECTRA_DECODER,
        bert.XLM_ROBERTA_DECODER,
        modernbert.MODERNBERT_DECODER,
        eurobert.EUROBERT_DECODER,
    )
}
"""From the name of a family to its causal class in `transformers`, which is written only."""


def family_of(values: Mapping[str, Any], where: str) -> Family:
    """Return the family of a config.json, an untrusted file; `where` is its name."""
    if values.get("model_type") is None:
        for family in _ALL:
            if any(name in values for name in family.telling_fields):
                return family
        # The original's bert_config.json has no such field.
        return bert.BERT
    others = {name: family for family in _ALL for name in family.other_names}
    known = Values(values, where, {}).one_of("model_type", "", (*FAMILIES, *others))
    return FAMILIES.get(known) or others[known]


def read_config(family: Family, values: Mapping[str, Any], where: str) -> ModelConfig:
    """Return the model of a config.json.

    The heads are those of the preset: only the weights show them. Raises `UserError`, naming the
    field, if a field is unknown, out of its range, or if bertjax computes it differently.
    """
    given = Values(values, where, family.other_fields)
    fields: dict[str, Any] = dict(PRESETS[family.name])
    for rule in family.rules:
        fields |= rule.read(given)
    try:
        config = from_dict(ModelConfig, fields, where)
    except UserError as error:
        # A value of another type is named with the file, one out of its range by our field alone.
        message = str(error)
        if not message.startswith(where):
            message = f"{where}: {message}"
        raise UserError(message) from error
    return config


def check_config(
    family: Family, values: Mapping[str, Any], where: str, config: ModelConfig
) -> None:
    """Raise `UserError` for a field of config.json that does not fit `config` with its heads."""
    given = Values(values, where, family.other_fields)
    for rule in family.rules:
        rule.check(given, config)


def write_config(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Return the fields of config.json that say what a model computes."""
    values: dict[str, Any] = {}
    for rule in family.rules:
        values |= rule.write(config)
    return values
