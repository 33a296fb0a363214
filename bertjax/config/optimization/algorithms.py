"""Configuration of the optimizer's algorithm: its name and its hyperparameters."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from bertjax.config.range_checks import fraction, fraction_below_one, not_negative, positive
from bertjax.errors import check

MOMENTS = ("b1", "b2", "eps")
"""The hyperparameters of Adam's moments."""
HYPERPARAMETERS: dict[str, tuple[str, ...]] = {
    "adamw": MOMENTS,
    "bert": MOMENTS,
    "lamb": MOMENTS,
    "stable_adamw": MOMENTS,
    "ademamix": (*MOMENTS, "ademamix_b3", "ademamix_alpha", "ademamix_warmup_updates"),
    "lion": ("lion_b1", "lion_b2"),
    "muon": (*MOMENTS, "muon_momentum", "muon_rms"),
    "sophia": ("sophia_b1", "sophia_b2", "sophia_eps", "sophia_gamma", "sophia_interval"),
    "schedule_free": MOMENTS,
}
"""The fields of `AlgorithmConfig` that each algorithm reads; the others keep their defaults."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """The optimizer's algorithm and its hyperparameters.

    A hyperparameter that the algorithm does not have is refused if it is set.
    """

    algorithm: Literal[
        "adamw",
        "lamb",
        "bert",
        "stable_adamw",
        "ademamix",
        "lion",
        "muon",
        "sophia",
        "schedule_free",
    ] = "adamw"
    """Optimizer algorithm.
    adamw: AdamW (arXiv 1711.05101). lamb: LAMB (arXiv 1904.00962), for large batches. bert: AdamW
    without bias correction, as in the original BERT. stable_adamw: AdamW that takes smaller steps
    for a tensor whose gradients have just grown (arXiv 2304.13013), as ModernBERT. ademamix: AdamW
    with a second, slow average of gradients (arXiv 2409.03137). lion: the sign of an average of
    gradients (arXiv 2302.06675). muon: orthogonalized momentum for the matrices of the layers
    (arXiv 2502.16982), AdamW for all else. sophia: clipped steps divided by an estimate of the
    Hessian's diagonal (arXiv 2305.14342). schedule_free: AdamW that averages its weights instead of
    lowering the learning rate (arXiv 2405.15682); with schedule constant.
    """
    b1: float = 0.9
    """Decay rate of the first moment (0 to 1).
    For schedule_free, which has no such moment: the share of the average in the weights at which
    gradients are taken.
    """
    b2: float = 0.999
    """Decay rate of the second moment (0 to 1)."""
    # As in the original BERT; the default of optax and PyTorch is 1e-8.
    eps: float = 1e-6
    """Number added to the square root of the second moment."""
    # The defaults below are those of the papers, where these name one.
    ademamix_b3: float = 0.9999
    """Algorithm ademamix: decay rate of the slow average (0 to below 1)."""
    ademamix_alpha: float = 5.0
    """Algorithm ademamix: factor of the slow average in a step; the paper has 4 to 10."""
    ademamix_warmup_updates: int = 0
    """Algorithm ademamix: number of updates in which b3 and alpha rise; 0: they are constant.
    b3 rises from b1, alpha from 0 (equations of section 3). The paper has those of the whole run.
    """
    lion_b1: float = 0.9
    """Algorithm lion: share of the average in the sign that is taken (0 to 1)."""
    lion_b2: float = 0.99
    """Algorithm lion: decay rate of the average (0 to 1)."""
    muon_momentum: float = 0.95
    """Algorithm muon: decay rate of the matrices' momentum (0 to below 1)."""
    muon_rms: float = 0.2
    """Algorithm muon: root-mean-square of a matrix's step before the learning rate.
    0.2 is about that of AdamW's steps, so that one learning rate serves both (arXiv 2502.16982,
    section 2.2).
    """
    # The paper's for its larger models (section 3.1); clipped steps reach 1.
    sophia_b1: float = 0.96
    """Algorithm sophia: decay rate of the average of gradients (0 to 1)."""
    sophia_b2: float = 0.99
    """Algorithm sophia: decay rate of the average of Hessian estimates (0 to 1)."""
    sophia_eps: float = 1e-12
    """Algorithm sophia: smallest divisor of the average of gradients."""
    sophia_gamma: float = 0.01
    """Algorithm sophia: factor of the Hessian's diagonal in the divisor."""
    sophia_interval: int = 10
    """Algorithm sophia: number of updates between two estimates of the Hessian's diagonal.
    An estimate takes a product of the Hessian with a vector: the time of about two gradients.
    """


def check_algorithm(config: AlgorithmConfig) -> None:
    """Raise `UserError` for a hyperparameter out of range, or of another algorithm."""
    section = "optimizer"
    positive(section, config, "eps", "sophia_eps", "sophia_gamma", "sophia_interval", "muon_rms")
    fraction(section, config, *(name for name in _names() if name.endswith(("b1", "b2"))))
    fraction_below_one(section, config, "ademamix_b3", "muon_momentum")
    not_negative(section, config, "ademamix_alpha", "ademamix_warmup_updates")
    own = HYPERPARAMETERS[config.algorithm]
    for field in dataclasses.fields(AlgorithmConfig):
        value = getattr(config, field.name)
        check(
            field.name in ("algorithm", *own) or value == field.default,
            where=f"{section}.{field.name}",
            found=value,
            expected=f"the default ({field.default}): algorithm {config.algorithm} has"
            f" {', '.join(own)}",
        )
    if config.algorithm == "schedule_free":
        # The gradients' weights are (1 - b1) times the fast ones: without them nothing is learnt.
        fraction_below_one(section, config, "b1")
    if config.ademamix_warmup_updates:
        # The rise from b1 is linear in the half-life, ln 0.5 / ln b, which 0 and 1 do not have.
        check(
            0 < config.b1 < 1,
            where=f"{section}.b1",
            found=config.b1,
            expected="above 0 and below 1, from where ademamix_b3 rises",
        )


def _names() -> list[str]:
    return [field.name for field in dataclasses.fields(AlgorithmConfig)]
