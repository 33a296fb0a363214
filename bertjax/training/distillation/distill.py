"""A run of pretraining with a teacher: its configuration, checks, objective and evaluation."""

import dataclasses
from collections.abc import Collection
from functools import partial

from jax.sharding import Mesh

from bertjax.config import Config
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.masking.selection import Vocabulary
from bertjax.model.functional import TEACHER, Params
from bertjax.training.batch_source import BatchSource
from bertjax.training.distillation.evaluate import distilled_evaluator
from bertjax.training.distillation.objective import DistilledPretraining
from bertjax.training.distillation.student import (
    check_start,
    log_start,
    start_from,
    student_of,
    with_layers,
)
from bertjax.training.distillation.teacher import (
    Teacher,
    check_models,
    check_same_tokenizer,
    load_params,
    open_teacher,
    teacher_digest,
)
from bertjax.training.initial_model import take_initial_model
from bertjax.training.objective import Given
from bertjax.training.pretraining import Pretraining, check_heads, pretraining
from bertjax.training.provenance.data_record import TEACHER_DIGEST


def take_student(config: Config, overrides: Collection[str] = ()) -> tuple[Config, Teacher]:
    """Return `config` with the student's model, and its teacher.

    `overrides` are dotted names of fields that keep the value they have in `config`. Raises
    `UserError` where there is no teacher, or where its layers cannot be mapped to the student's.
    """
    teacher = open_teacher(config.distill.teacher, config.mesh)
    asked = dataclasses.replace(config, model_from_init=True)
    initial = None if config.init_from else student_of(config, teacher)
    taken = take_initial_model(asked, overrides, initial=initial)
    # The text has its tokenizer; the folder of the teacher may be moved.
    taken = dataclasses.replace(
        taken, model_from_init=config.model_from_init, tokenizer=config.tokenizer
    )
    return with_layers(taken, teacher.model), teacher


def check_student(config: Config, teacher: Teacher, tokenizer: Tokenizer) -> None:
    """Raise `UserError` for what student, teacher, text and terms do not have in common."""
    check_same_tokenizer(teacher, tokenizer, where="the tokenizer of the data")
    settings = config.distill
    if settings.objective_weight > 0:
        check_heads(config)
    check_models(settings, config.model, teacher.model)
    check(
        config.data.max_seq_length <= teacher.model.max_length,
        where="data.max_seq_length",
        found=config.data.max_seq_length,
        expected=f"at most the teacher's positions ({teacher.model.max_length})",
    )
    if settings.start == "teacher" and not config.init_from:
        check_start(settings, config.model, teacher.model)


def objective_of(
    config: Config, teacher: Teacher, vocabulary: Vocabulary | None
) -> DistilledPretraining:
    """Return the objective of a configuration that `take_student` returned."""
    # Equal objectives share compiled programs, wherever their teachers are.
    settings = dataclasses.replace(config.distill, teacher="")
    base = pretraining(config, vocabulary)
    assert isinstance(base, Pretraining)  # a generator beside a teacher is refused
    return DistilledPretraining(base, teacher.model, settings)


def given_by(config: Config, teacher: Teacher, params: Params) -> Given:
    """Return what the run is given by its teacher, whose parameters are `params`."""

    def start() -> Params:
        if config.distill.start == "random":
            return {}
        log_start(config.distill, teacher.checkpoint)
        return start_from(config.distill, config.model, params)

    return Given({TEACHER: params}, start)


def load_given(config: Config, teacher: Teacher, mesh: Mesh) -> Given:
    """Read the teacher's parameters onto `mesh`, and return what the run is given by it."""
    return given_by(config, teacher, load_params(teacher, mesh))


def distilled_source(
    source: BatchSource, objective: DistilledPretraining, given: Given, teacher: Teacher
) -> BatchSource:
    """Return the source with an evaluator of the terms, and the teacher among its facts."""
    evaluator = None
    if source.heldout:
        evaluator = partial(distilled_evaluator, objective, given.params, source.heldout)
    facts = {**source.facts, TEACHER_DIGEST: teacher_digest(teacher)}
    return dataclasses.replace(source, make_evaluator=evaluator, facts=facts)
