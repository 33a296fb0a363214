"""What student and teacher must have in common, and what tells a teacher from another one."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config import DistillConfig
from bertjax.errors import UserError
from bertjax.training.distillation.teacher import (
    check_models,
    open_teacher,
    teacher_digest,
)
from bertjax.training.saved_model import save_model
from tests.factory import SMALL_MODEL, small_config
from tests.tasks.tiny import TOKENIZER
from tests.training.distillation.models import TEACHER_MODEL, random_params


def saved(folder, params, model=SMALL_MODEL):
    save_model(folder, small_config(model=model), params, TOKENIZER, {})
    return folder


def test_a_copy_of_a_teacher_has_its_digest_and_another_one_has_not(tmp_path):
    params = random_params(SMALL_MODEL, 0)
    digest = teacher_digest(open_teacher(saved(tmp_path / "one", params)))
    assert teacher_digest(open_teacher(saved(tmp_path / "copy", params))) == digest
    changed = jax.tree.map(np.copy, params)
    changed["embeddings"]["word"]["embedding"][5, 0] += 1e-6
    assert teacher_digest(open_teacher(saved(tmp_path / "changed", changed))) != digest
    # The same numbers are another function with another activation.
    other = dataclasses.replace(SMALL_MODEL, hidden_act="relu")
    assert teacher_digest(open_teacher(saved(tmp_path / "other", params, other))) != digest


@pytest.mark.parametrize(
    ("settings", "student", "message"),
    [
        (
            {"cosine_weight": 1.0},
            {"hidden_size": 8},
            "model.hidden_size: found 8, expected the teacher's 16, for distill.cosine_weight",
        ),
        (
            {"attention_weight": 1.0},
            {"num_attention_heads": 4},
            "model.num_attention_heads: found 4, expected the teacher's 2",
        ),
        (
            {"relation_weight": 1.0, "relation_heads": 3},
            {},
            "distill.relation_heads: found 3, expected a divisor of 16, a width of the student",
        ),
        (
            {"relation_weight": 1.0, "relation_heads": 16},
            {"hidden_size": 8},
            "distill.relation_heads: found 16, expected a divisor of 8, a width of the student",
        ),
        (
            {"relation_weight": 1.0, "relation_layer": 5},
            {},
            "distill.relation_layer: found 5, expected at most 4, the teacher's layers",
        ),
        (
            {"soft_weight": 1.0},
            {"vocab_size": 65},
            "model.vocab_size: found 65, expected the teacher's 64, for distill.soft_weight",
        ),
        (
            {"soft_weight": 1.0},
            {"heads": ()},
            "model: heads: found none, expected mlm, for distill.soft_weight",
        ),
    ],
)
def test_models_that_a_term_cannot_compare_are_refused(settings, student, message):
    named = DistillConfig(**{"soft_weight": 0.0, **settings})
    model = dataclasses.replace(SMALL_MODEL, **student)
    with pytest.raises(UserError) as error:
        check_models(named, model, TEACHER_MODEL)
    assert message in str(error.value)


def test_other_widths_and_heads_are_no_matter_to_terms_that_do_not_compare_them():
    named = DistillConfig(soft_weight=0.0, hidden_weight=1.0, relation_weight=1.0, relation_heads=8)
    narrow = dataclasses.replace(SMALL_MODEL, hidden_size=8, num_attention_heads=4)
    check_models(named, narrow, TEACHER_MODEL)
