"""The student: its model, made from the teacher's, and the layers that it starts from."""

import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from bertjax.config import Config, DistillConfig, Head, ModelConfig
from bertjax.errors import check
from bertjax.model import functional
from bertjax.model.functional import Params
from bertjax.training.checkpoint_files import shapes_by_name
from bertjax.training.distillation.teacher import Teacher
from bertjax.training.initial_model import InitialModel
from bertjax.training.saved_model import TOKENIZER

log = logging.getLogger("bertjax")

HEADS = ("mlm", "pooler", "nsp")


def student_of(config: Config, teacher: Teacher) -> InitialModel:
    """Return the model that a student has unless its configuration names other fields."""
    model = teacher.model
    if config.distill.student_from_teacher:
        layers = len(config.distill.teacher_layers) or max(1, model.num_hidden_layers // 2)
        heads = _trained_heads(config, model)
        model = dataclasses.replace(model, num_hidden_layers=layers, heads=heads)
        taken = dataclasses.replace(teacher.config, model=model)
    else:
        taken = dataclasses.replace(config, tokenizer=teacher.config.tokenizer)
    return InitialModel(taken, teacher.run_dir / TOKENIZER)


def _trained_heads(config: Config, teacher: ModelConfig) -> tuple[Head, ...]:
    """Return the teacher's heads that some term of the student's loss trains.

    A head of no term would keep what it computed of the teacher's last layer.
    """
    settings = config.distill
    trained: set[str] = set()
    if settings.objective_weight > 0 or settings.soft_weight > 0:
        trained.add("mlm")
    if settings.objective_weight > 0 and config.data.sentence_objective != "none":
        trained |= {"pooler", "nsp"}
    return tuple(head for head in teacher.heads if head in trained)


def with_layers(config: Config, teacher: ModelConfig) -> Config:
    """Return `config` with the teacher's layer of each layer of the student.

    Raises `UserError` where there is none for each, or where the teacher lacks one.
    """
    layers = config.distill.teacher_layers
    own, taught = config.model.num_hidden_layers, teacher.num_hidden_layers
    starts = config.distill.start == "teacher" and not config.init_from
    if not layers and not starts and not config.distill.compares_layers:
        return config
    if not layers:
        check(
            taught % own == 0,
            where="model.num_hidden_layers",
            found=own,
            expected=f"a divisor of the teacher's {taught}, or distill.teacher_layers",
        )
        layers = tuple(range(taught // own, taught + 1, taught // own))
    check(
        len(layers) == own,
        where="distill.teacher_layers",
        found=f"{len(layers)} layers",
        expected=f"one for each of the student's {own}",
    )
    check(
        layers[-1] <= taught,
        where="distill.teacher_layers",
        found=layers[-1],
        expected=f"at most {taught}, the teacher's layers",
    )
    return config.replace(distill={"teacher_layers": layers})


def check_start(settings: DistillConfig, student: ModelConfig, teacher: ModelConfig) -> None:
    """Raise `UserError` where the student cannot start from the teacher's layers."""
    check(
        not (student.layer_mix or teacher.layer_mix) or student == teacher,
        where="distill.start",
        found="teacher",
        expected="random, for layers that mix the outputs of all earlier ones",
    )
    for number, taught in enumerate(settings.teacher_layers, 1):
        check(
            student.is_global(number - 1) == teacher.is_global(taught - 1),
            where="distill.teacher_layers",
            found=f"layer {taught} with {_kind(teacher, taught)} attention",
            expected=f"one with {_kind(student, number)} attention, as layer {number} of the"
            " student",
        )
    saved = shapes_by_name(_chosen(student, functional.shapes(teacher), settings.teacher_layers))
    for name, (shape, _) in shapes_by_name(_encoder_of(functional.shapes(student))).items():
        found = saved.get(name)
        check(
            found is not None and found[0] == shape,
            where=f"distill.start teacher: {name}",
            found=f"{_shown(found and found[0])} in the teacher",
            expected=f"{_shown(shape)} as in the student, or distill.start random",
        )


def _kind(model: ModelConfig, number: int) -> str:
    return "global" if model.is_global(number - 1) else "local"


def _shown(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else str(list(shape))


def _encoder_of(params: Params) -> dict[str, Any]:
    return {group: params[group] for group in ("embeddings", "encoder")}


def start_from(settings: DistillConfig, student: ModelConfig, params: Params) -> dict[str, Any]:
    """Return the groups of the teacher's parameters that the student starts from."""
    chosen = _chosen(student, params, settings.teacher_layers)
    # Copies: the student's arrays are donated to the train step, and the teacher's stay.
    return jax.tree.map(jnp.copy, chosen)


def log_start(settings: DistillConfig, folder: epath.Path) -> None:
    """Log which layers of the teacher in a checkpoint folder the student starts from."""
    layers = ", ".join(str(layer) for layer in settings.teacher_layers)
    log.info("parameters from layers %s of %s", layers, folder)


def _chosen(
    student: ModelConfig, params: Params, layers: Collection[int]
) -> dict[str, Mapping[str, Any]]:
    """Return the teacher's groups that the student has, with the chosen layers alone.

    The leaves may be arrays or shapes.
    """
    groups = {**_encoder_of(params)}
    for head in HEADS:
        if head in student.heads and head in params:
            groups[head] = params[head]
    stack = jax.tree.leaves(params["encoder"]["layers"])[0].shape[0]
    # Layers that share their parameters have one.
    if stack > 1:
        groups["encoder"] = {
            **params["encoder"],
            "layers": _taken(params["encoder"]["layers"], layers),
        }
    return groups


def _taken(stacked: Any, layers: Collection[int]) -> Any:
    places = jnp.asarray([layer - 1 for layer in layers])

    def take(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((len(places), *leaf.shape[1:]), leaf.dtype)
        return jnp.take(leaf, places, axis=0)

    return jax.tree.map(take, stacked)
