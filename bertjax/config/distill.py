"""Configuration of distillation: the teacher, and the terms that a student learns from it."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bertjax.config.field_types import check_fields
from bertjax.config.range_checks import fit_int32, not_negative, positive
from bertjax.errors import check

SOFT = "soft"
TERMS_OF_LAYERS = ("cosine", "embedding", "hidden", "attention", "relation")
"""What a student may learn from the embeddings and layers of its teacher."""
TERMS = (SOFT, *TERMS_OF_LAYERS)
"""What a student may learn from its teacher."""
WEIGHTS = ("objective_weight", *(f"{term}_weight" for term in TERMS))
TERMS_OF_PAIRS = ("hidden", "attention")
"""The terms that compare each layer of the student with its layer of the teacher."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What a student learns from a teacher, beside the objective of its run.

    The loss is the sum of the terms, each a mean times its weight. Without a teacher, nothing of
    this section is used.
    """

    teacher: str = ""
    """Run or checkpoint folder of the teacher; empty: no distillation.
    A model of another program becomes one by `bertjax import`.
    """
    student_from_teacher: bool = True
    """Take the student's model from the teacher, with half as many layers.
    Fields of `model` on the command line replace the teacher's, such as --model.num-hidden-layers
    or --model.hidden-size. Heads that no term trains are left out. False: the section `model` is
    the student. With init_from, the student is the model there.
    """
    start: Literal["teacher", "random"] = "teacher"
    """Initial parameters of the student, where there is no init_from.
    teacher: embeddings, heads, and the layers in teacher_layers; the widths must be equal.
    """
    teacher_layers: tuple[int, ...] = ()
    """The teacher's layer for each layer of the student, ascending, counted from 1.
    Empty: evenly spaced, the last one included: every second layer for half as many.
    """
    objective_weight: float = 1.0
    """Weight of the run's own objective: masked words and pairs of sentences, or labels of tasks.
    0: it is not computed.
    """
    soft_weight: float = 1.0
    """Weight of the soft targets: the teacher's probabilities of masked words, or of a task's
    labels (arXiv 1503.02531). For numbers, it is the squared difference.
    """
    temperature: float = 2.0
    """Temperature T of the soft targets: logits are divided by it, and the loss is times T^2."""
    cosine_weight: float = 0.0
    """Weight of 1 - cosine of the last hidden states of the two (arXiv 1910.01108)."""
    embedding_weight: float = 0.0
    """Weight of the squared difference of the embeddings (arXiv 1909.10351, equation 9)."""
    hidden_weight: float = 0.0
    """Weight of the squared difference of the hidden states after each pair of layers, the
    student's by a learned projection (arXiv 1909.10351, equation 8).
    """
    attention_weight: float = 0.0
    """Weight of the squared difference of the attention scores before the softmax, in each pair of
    layers (arXiv 1909.10351, equation 7). Both models need the same number of heads.
    """
    relation_weight: float = 0.0
    """Weight of the relations between queries, between keys and between values of one layer, the
    student's last (arXiv 2012.15828).
    """
    relation_heads: int = 0
    """Number of heads into which the vectors of the relations are divided; 0: the teacher's heads.
    It must divide the widths of both models.
    """
    relation_layer: int = 0
    """Layer of the teacher whose relations are learned, counted from 1; 0: the last."""

    def __post_init__(self) -> None:
        check_fields("distill", self)
        not_negative("distill", self, *WEIGHTS, "relation_heads", "relation_layer")
        positive("distill", self, "temperature")
        fit_int32("distill", self)
        layers = self.teacher_layers
        ascending = all(low < high for low, high in pairwise(layers))
        check(
            ascending and all(layer > 0 for layer in layers),
            where="distill.teacher_layers",
            found=" ".join(map(str, layers)),
            expected="ascending numbers from 1",
        )
        check(
            not self.teacher or any(getattr(self, name) > 0 for name in WEIGHTS),
            where="distill",
            found="no weight above 0",
            expected="one or more terms to learn",
        )

    def weights_of(self, terms: Collection[str]) -> dict[str, float]:
        """Return the weights of those `terms` that are learned."""
        by_term = {term: getattr(self, f"{term}_weight") for term in terms}
        return {term: weight for term, weight in by_term.items() if weight > 0}

    @property
    def compares_layers(self) -> bool:
        """True if each layer of the student is compared with a layer of the teacher."""
        return bool(self.weights_of(TERMS_OF_PAIRS))
