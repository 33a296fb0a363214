"""A teacher and a student of a few numbers, with parameters and a batch."""

import dataclasses

import jax
import numpy as np

from bertjax.config import DataConfig, DistillConfig
from bertjax.model import functional
from bertjax.model.functional import TEACHER
from bertjax.training.distillation.objective import DistilledPretraining
from bertjax.training.pretraining import Pretraining
from tests.factory import SMALL_MODEL, random_batch

TEACHER_MODEL = dataclasses.replace(SMALL_MODEL, num_hidden_layers=4)
NO_TERM = {"objective_weight": 0.0, "soft_weight": 0.0}


def random_params(config, seed):
    """Parameters that differ everywhere, also where new ones are 0 or 1."""
    return drawn(functional.shapes(config), seed)


def drawn(shapes, seed):
    """Random numbers of these shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (0.3 * rng.standard_normal(leaf.shape)).astype(np.float32), shapes
    )


def distilled(student=SMALL_MODEL, teacher=TEACHER_MODEL, *, layers=(2, 4), **settings):
    """The objective of these terms alone."""
    named = DistillConfig(**{**NO_TERM, "teacher_layers": layers, **settings})
    base = Pretraining(student, DataConfig(max_seq_length=16, max_predictions_per_seq=4))
    return DistilledPretraining(base, teacher, named)


def with_teacher(objective, seed=0):
    """Random parameters of the student with the projections, and of its teacher."""
    own = drawn(jax.eval_shape(lambda: objective.init(jax.random.key(0))), seed)
    return {**own, TEACHER: random_params(objective.teacher, seed + 1)}


def uneven_batch(rows=8, seed=0):
    """Rows of different lengths, with masked words."""
    return random_batch(np.random.default_rng(seed), rows)
