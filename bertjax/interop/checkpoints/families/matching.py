"""The family that computes what a configuration says.

A family fits if its config.json for the configuration, read again, means the same configuration.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bertjax.config import Head, ModelConfig
from bertjax.config.families import FAMILIES as PRESETS
from bertjax.config.layers import BIASES
from bertjax.errors import UserError, check, excerpt, mismatch
from bertjax.interop.checkpoints.families.family import SIGNS_OF_HEAD, Family
from bertjax.interop.checkpoints.families.rules import AnyHeadWidth
from bertjax.interop.checkpoints.families.table import (
    DECODERS,
    FAMILIES,
    check_config,
    read_config,
    write_config,
)
from bertjax.tasks.task_head import TaskHead

# What an exported model does not depend on: training, and how it is computed.
_FREE = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout_places",
    "embedding_noise",
    "embedding_noise_kind",
    "z_loss",
    "initializer",
    "initializer_range",
    "scaled_init",
    "dtype",
    "scan_unroll",
    "remat",
    "kernels",
    "sparse_products",
    "dropout_bits",
    "heads",
    "token_pooler",  # only for heads on tokens
    "exported_as",
)
_OF_HEADS: dict[Head, tuple[str, ...]] = {
    "mlm": (
        "mlm_transform",
        "mlm_hidden_size",
        "mlm_act",
        "mlm_norm",
        "mlm_tied",
        "mlm_shifted",
    ),
    "pooler": ("pooling", "pooler", "pooler_act", "pooler_norm"),
}
_ROTARY = ("rotary_pairs", "rotary_base", "rotary_base_local", "rotary_scaling")
_RELATIVE = ("relative_max_distance", "relative_projections")
_WINDOWS = ("rotary_base_local", "global_attn_every_n_layers", "first_global_layer")


def decoder_family(config: ModelConfig) -> Family:
    """Return the causal class of the family with the model `config`.

    Its logits at a token are those of the next one, so `config.mlm_shifted` says nothing of it.
    Raises `UserError` for a family without such a class, and as `matching_family` does.
    """
    check(
        "mlm" in config.heads,
        where="model.heads",
        found=", ".join(config.heads) or "none",
        expected="mlm among them, for network decoder",
    )
    alone = dataclasses.replace(config, heads=("mlm",), mlm_shifted=False)
    try:
        return matching_family(alone, families=DECODERS)
    except UserError as error:
        own = matching_family(alone).name
        if own in DECODERS:
            raise error
    raise mismatch(
        where="network",
        found="decoder",
        expected=f"model: transformers has no decoder class of {own}, as of {', '.join(DECODERS)}",
    )


def matching_family(
    config: ModelConfig,
    head: TaskHead | None = None,
    families: Mapping[str, Family] = FAMILIES,
) -> Family:
    """Return the family with the model `config`, fine-tuned where there is a `head`.

    Of several in the table `families` it is the one that `config.exported_as` names, or else the
    first. Raises `UserError` naming the field with which no family is left.
    """
    nearest: tuple[int, str, Any, Any, Family] | None = None
    refused: UserError | None = None
    without_rtd: Family | None = None
    for family in _in_order(config.exported_as, families):
        kept = dataclasses.replace(config, heads=exported_heads(family, config, head))
        differing = _differing(family, kept)
        expected_pooler = PRESETS[family.name].get("token_pooler", False)
        if head is not None and head.on_tokens and config.token_pooler != expected_pooler:
            differing["token_pooler"] = (config.token_pooler, expected_pooler)
        if not differing:
            # Beside a task's head the export leaves out what that head does not read.
            whole = kept if head is not None else config
            lacking = _lacking_head(family, whole)
            if lacking is None:
                return family
            if without_rtd is None and _lacking_head(family, _without_rtd(whole)) is None:
                without_rtd = family
            refused = refused or lacking
            continue
        name, (found, expected) = next(iter(differing.items()))
        if nearest is None or len(differing) <= nearest[0]:
            nearest = (len(differing), name, found, expected, family)
    # Nothing but pretraining reads this head: what is wanted of a discriminator is its encoder.
    if without_rtd is not None:
        return without_rtd
    if refused is not None:
        raise refused
    assert nearest is not None
    _, name, found, expected, family = nearest
    reason = "no family of transformers has this model"
    decoder = _decoder_instead(config) if name == "mlm_shifted" else None
    if decoder is not None:
        family, causal = decoder, next(iter(decoder.classes))
        reason = f"of its classes {causal} alone (--network decoder) reads the state before a word"
    raise mismatch(
        where=f"model.{name}",
        found=found,
        expected=f"{expected}, as in {family.name}: {reason}",
    )


def _decoder_instead(config: ModelConfig) -> Family | None:
    """Return the causal class that reads words as a shifted head does; None if there is none."""
    try:
        return decoder_family(config)
    except UserError:
        return None


def _without_rtd(config: ModelConfig) -> ModelConfig:
    """Return the model without the head for replaced tokens."""
    heads = tuple(name for name in config.heads if name != "rtd")
    return dataclasses.replace(config, heads=heads)


def _in_order(first: str, families: Mapping[str, Family]) -> list[Family]:
    """Return all families, beginning with the one of this name; '' for none."""
    check(
        not first or first in FAMILIES,
        where="model.exported_as",
        found=excerpt(first),
        expected=f"one of {', '.join(FAMILIES)}",
    )
    return sorted(families.values(), key=lambda family: family.name != first)


def exported_heads(family: Family, config: ModelConfig, task: TaskHead | None) -> tuple[Head, ...]:
    """Return the heads of `config` that an export has.

    A fine-tuned model has the pooler where the head of the `task` reads it.
    """
    if task is not None:
        return ("pooler",) if config.token_pooler or not task.on_tokens else ()
    in_class = family.classes[class_of(family, config)]
    kept = {*in_class, "pooler"} if family.pooler_in_encoder else in_class
    return tuple(head for head in config.heads if head in kept)


def class_of(family: Family, config: ModelConfig) -> str:
    """Return the class with most of the model's heads."""
    fitting = (name for name, heads in family.classes.items() if heads <= set(config.heads))
    return next(fitting, list(family.classes)[-1])


def _lacking_head(family: Family, config: ModelConfig) -> UserError | None:
    """Return the error for a head of `config` that the family has not; None if it has all."""
    for head in config.heads:
        # A pooler that computes nothing has no parameters.
        is_empty = head == "pooler" and config.pooler == "none"
        if not (is_empty or any(family.names[0].has(path) for path in SIGNS_OF_HEAD[head])):
            return mismatch(
                where="model.heads",
                found=head,
                expected=f"a head of {family.name}, which the other settings make it",
            )
    return None


def _differing(family: Family, config: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Return the fields that the family has otherwise: from the name to both values."""
    if not _has_head_width(family, config):
        # Compared as if it had one head of the whole width, so that all other fields count too.
        usual = f"{config.hidden_size / config.num_attention_heads:g}"
        plain = dataclasses.replace(
            config, attention_head_size=0, num_attention_heads=1, num_key_value_heads=0
        )
        others = _differing(family, plain)
        found = f"{config.head_width} with num_attention_heads {config.num_attention_heads}"
        return {"attention_head_size": (found, f"{usual}, hidden_size by the heads"), **others}
    values = write_config(family, config)
    try:
        again = dataclasses.replace(read_config(family, values, "config.json"), heads=config.heads)
        check_config(family, values, "config.json", again)
    except UserError as error:
        # What the family cannot say at all comes after all that differs from it.
        return {f"config.json ({count})": (str(error), "") for count in range(len(_FREE))}
    expected = _meaning(again)
    differing: dict[str, tuple[Any, Any]] = {}
    for name, value in _meaning(config).items():
        if value != expected.get(name, value):
            differing[name] = (value, expected[name])
    return differing


def _has_head_width(family: Family, config: ModelConfig) -> bool:
    """Return whether the family can say the width of the heads."""
    is_usual = config.attention_width == config.hidden_size
    return is_usual or any(isinstance(rule, AnyHeadWidth) for rule in family.rules)


def _meaning(config: ModelConfig) -> dict[str, Any]:
    """Return the fields that decide what the model computes, each with its effective value."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    unused = set(_FREE)
    unused |= set() if config.positions == "rotary" else set(_ROTARY)
    unused |= set() if config.relative_positions else set(_RELATIVE)
    for head, names in _OF_HEADS.items():
        unused |= set() if head in config.heads else set(names)
    if config.local_attention and not all(config.attends_globally):
        values["rotary_base_local"] = config.rotary_base_local or config.rotary_base
        values["global_attn_every_n_layers"] = config.attends_globally
        unused.add("first_global_layer")
    else:
        values["local_attention"] = 0
        unused |= set(_WINDOWS)
    longest = config.relative_max_distance or config.max_position_embeddings
    values["relative_max_distance"] = longest
    values["num_key_value_heads"] = config.key_value_heads
    values["attention_head_size"] = config.head_width
    values["mlm_act"] = config.mlm_activation
    values["biases"] = _used_biases(config)
    if not config.mlm_transform:
        unused |= {"mlm_act", "mlm_norm"}
    if config.pooler == "none":
        unused |= {"pooler_act", "pooler_norm"}
    return {name: value for name, value in values.items() if name not in unused}


def _used_biases(config: ModelConfig) -> tuple[str, ...]:
    """Return the parts with biases that the model has."""
    absent: set[str] = set()
    if "mlm" not in config.heads:
        absent |= {"mlm", "mlm_transform"}
    if not config.mlm_transform:
        absent.add("mlm_transform")
    if "pooler" not in config.heads or config.pooler == "none":
        absent.add("pooler")
    return tuple(part for part in BIASES if part in config.biases and part not in absent)
