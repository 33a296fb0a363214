"""Configuration of replaced-token detection: the generator, and the weights of the two losses."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bertjax.config.field_types import check_fields
from bertjax.config.model import ModelConfig
from bertjax.config.range_checks import must_equal, not_negative, positive
from bertjax.errors import check


@dataclass(frozen=True, kw_only=True)
class ReplacedConfig:
    """Replaced-token detection (arXiv 2003.10555): the model, a discriminator, tells which tokens a
    smaller model, the generator, has replaced.

    Both are trained in each step. Without a generator, nothing of this section is used.
    """

    generator: Literal["none", "tied", "disentangled"] = "none"
    """The generator, and what it has in common with the model.
    none: no generator; masked words are predicted. tied: one table of token embeddings is trained
    by both losses, with the positions, token types and norm that are added to it. disentangled: the
    model's table of token embeddings is the generator's and a difference that begins with 0, of
    which the model's loss trains the difference alone (arXiv 2111.09543).
    """
    generator_size: float = 0.25
    """Width of the generator: its share of the model's width, feed-forward width and heads."""
    generator_layers: float = 1.0
    """Layers of the generator: their share of the model's layers."""
    generator_weight: float = 1.0
    """Weight of the generator's loss, the cross-entropy of masked words."""
    weight: float = 50.0
    """Weight of the discriminator's loss, the binary cross-entropy of all tokens."""

    def __post_init__(self) -> None:
        check_fields("replaced", self)
        positive("replaced", self, "generator_size", "generator_layers", "weight")
        not_negative("replaced", self, "generator_weight")
        for name in ("generator_size", "generator_layers"):
            value = getattr(self, name)
            check(value <= 1, where=f"replaced.{name}", found=value, expected="at most 1")

    @property
    def is_disentangled(self) -> bool:
        """True if the networks share embeddings of words without sharing their gradients."""
        return self.generator == "disentangled"

    @property
    def is_used(self) -> bool:
        """True if there is a generator."""
        return self.generator != "none"


def generator_of(model: ModelConfig, settings: ReplacedConfig) -> ModelConfig:
    """Return the generator of the discriminator `model`: its kind, but smaller, for masked words.

    Heads are as wide as the model's. Raises `UserError` where the sizes are no whole numbers.
    """
    share = settings.generator_size
    heads, width = round(model.num_attention_heads * share), round(model.hidden_size * share)
    whole = heads * model.head_width
    check(
        heads > 0 and (model.attention_head_size > 0 or width == whole),
        where="replaced.generator_size",
        found=f"{share:g}, a width of {width}",
        expected=f"whole heads of width {model.head_width}, such as"
        f" {max(heads, 1) / model.num_attention_heads:.4g}",
    )
    layers = round(model.num_hidden_layers * settings.generator_layers)
    check(
        layers > 0,
        where="replaced.generator_layers",
        found=f"{settings.generator_layers:g} of {model.num_hidden_layers} layers",
        expected="one layer or more",
    )
    sizes: dict[str, Any] = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": max(round(model.intermediate_size * share), 1),
        "num_hidden_layers": layers,
        # The embeddings are as wide as the model's, and projected where the generator is not.
        "embedding_size": 0 if model.embedding_width == width else model.embedding_width,
        "heads": ("mlm",),
        "scan_unroll": min(model.scan_unroll, layers),
    }
    if model.num_key_value_heads:
        sizes["num_key_value_heads"] = max(round(model.num_key_value_heads * share), 1)
    return dataclasses.replace(model, **sizes)


def check_replaced(config: Any) -> None:
    """Raise `UserError` for what a `Config` says that does not fit replaced-token detection."""
    if not config.replaced.is_used:
        return
    others = {
        "finetune.tasks": config.finetune.tasks,
        "distill.teacher": config.distill.teacher,
    }
    _check_unset(config.replaced.generator, others, expected="none")
    check(
        config.data.sentence_objective == "none",
        where="data.sentence_objective",
        found=config.data.sentence_objective,
        expected="none, for replaced-token detection: no head reads labels of sentence pairs",
    )
    if config.replaced.is_disentangled:
        _check_disentangled(config)
    reason = "for replaced-token detection"
    must_equal("data", config.data, reason, objective="masked", causal_share=0.0)
    must_equal("model", config.model, reason, mlm_shifted=False)
    # A generator's layers are not the model's, so what counts layers would mean two things.
    must_equal(
        "optimizer",
        config.optimizer,
        f"{reason}, which trains two networks",
        freeze="none",
        freeze_layers=0,
        layer_decay=1.0,
    )
    # The model is taken from elsewhere later, and checked then.
    if not config.model_from_init:
        check_discriminator(config.model, config.replaced)


def _check_disentangled(config: Any) -> None:
    """Raise `UserError` for what keeps other values of the weights beside them.

    They would be those of the difference of the two tables, and not of the model's table.
    """
    others = {
        "optimizer.algorithm schedule_free": config.optimizer.algorithm == "schedule_free",
        "optimizer.mixout": config.optimizer.mixout,
        "train.ema_decay": config.train.ema_decay,
    }
    _check_unset("disentangled", others, expected="tied or none")


def _check_unset(generator: str, others: Mapping[str, object], expected: str) -> None:
    """Raise `UserError` for the first of other settings that is set beside a generator."""
    for name, value in others.items():
        check(
            not value,
            where="replaced.generator",
            found=f"{generator} beside {name}",
            expected=expected,
        )


def check_discriminator(model: ModelConfig, settings: ReplacedConfig) -> None:
    """Raise `UserError` for a model that is no discriminator, or of which there is no generator."""
    check(
        model.heads == ("rtd",),
        where="model.heads",
        found=", ".join(model.heads) or "none",
        expected="rtd alone, for replaced-token detection: no other head would be trained",
    )
    generator_of(model, settings)
