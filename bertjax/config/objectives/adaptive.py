"""Configuration of adaptive masks: which tokens are masked more often than others."""

from dataclasses import dataclass
from typing import Any, Literal

from bertjax.config.field_types import check_fields
from bertjax.config.range_checks import fit_int32, fraction_below_one, must_equal, positive
from bertjax.errors import check


@dataclass(frozen=True, kw_only=True)
class AdaptiveConfig:
    """Masks that follow what the model predicts well (arXiv 2510.20475)."""

    masks: Literal["none", "hard"] = "none"
    """Weights of the pieces of the vocabulary, by which tokens are chosen to be masked.
    none: all are equal. hard: a piece that the model predicts rightly is masked less often.
    """
    every_steps: int = 200
    """Number of steps between two updates of the weights."""
    memory: float = 0.2
    """Share of a weight that stays at an update, 0 to below 1; the rest is 1 - accuracy."""

    def __post_init__(self) -> None:
        check_fields("adaptive", self)
        fit_int32("adaptive", self)
        positive("adaptive", self, "every_steps")
        fraction_below_one("adaptive", self, "memory")

    @property
    def is_used(self) -> bool:
        """True if pieces have weights."""
        return self.masks != "none"


def check_adaptive(config: Any) -> None:
    """Raise `UserError` for what a `Config` says that does not go with adaptive masks."""
    if not config.adaptive.is_used:
        return
    others = {
        "finetune.tasks": config.finetune.tasks,
        "distill.teacher": config.distill.teacher,
        "replaced.generator": config.replaced.is_used and config.replaced.generator,
    }
    for name, value in others.items():
        check(
            not value,
            where="adaptive.masks",
            found=f"{config.adaptive.masks} beside {name}",
            expected="none",
        )
    must_equal(
        "data",
        config.data,
        f"for adaptive.masks {config.adaptive.masks}",
        # Masks that `prepare` drew cannot follow the model.
        dynamic_masking=True,
        # A weight belongs to a piece, and not to a word.
        masking="token",
        objective="masked",
        causal_share=0.0,
    )
