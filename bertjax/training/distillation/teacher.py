"""The teacher: its checkpoint, what tells it from another one, and what it must have in common."""

import dataclasses
import hashlib
import json
from typing import NamedTuple

from etils import epath
from jax.sharding import Mesh

from bertjax.config import Config, DistillConfig, MeshConfig, ModelConfig, to_dict
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.model import functional
from bertjax.model.functional import BESIDE_MODEL, Params
from bertjax.parallel import rules
from bertjax.training import checkpoint
from bertjax.training.integrity.restoring import saved_arrays
from bertjax.training.provenance.data_record import check_fingerprint
from bertjax.training.saved_model import TOKENIZER, for_inference, saved_tokenizer


class Teacher(NamedTuple):
    """A teacher's checkpoint, of which no parameter is read yet."""

    run_dir: epath.Path
    checkpoint: epath.Path
    config: Config

    @property
    def model(self) -> ModelConfig:
        """The teacher's model."""
        return self.config.model


def open_teacher(path: str, mesh: MeshConfig | None = None) -> Teacher:
    """Return the teacher in a run or checkpoint folder, to be used on `mesh`.

    Raises `UserError` where there is no checkpoint, or where it cannot be used on the mesh.
    """
    run_dir, folder = checkpoint.find_checkpoint(path)
    config = for_inference(checkpoint.read_checkpoint_config(folder))
    if mesh is not None:
        config = dataclasses.replace(config, mesh=mesh)
    return Teacher(run_dir, folder, config)


def teacher_digest(teacher: Teacher) -> str:
    """Return what tells a teacher from another one: a digest of its model and its parameters.

    It does not depend on where its folder is, nor on how its arrays were saved.
    """
    arrays = {
        name: entry._asdict()
        for name, entry in saved_arrays(teacher.checkpoint).items()
        if name.startswith("params/")
    }
    values = {"model": to_dict(teacher.model), "arrays": arrays}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_params(teacher: Teacher, mesh: Mesh) -> Params:
    """Return the teacher's parameters without heads of tasks, sharded by the table of all models.

    Raises the errors of `restore_params`: each number is compared with the checkpoint's digests.
    """
    shapes = functional.shapes(teacher.model)
    shardings = rules.tree_shardings(mesh, functional.logical_axes(teacher.model))
    target = rules.with_shardings(shapes, shardings)
    return checkpoint.restore_params(teacher.checkpoint, target, ignored_groups=BESIDE_MODEL)


def check_same_tokenizer(teacher: Teacher, tokenizer: Tokenizer, where: str) -> None:
    """Raise `UserError` unless the teacher was trained with `tokenizer`, that of `where`.

    The same id would be another word to it.
    """
    folder = teacher.run_dir / TOKENIZER
    check(
        folder.exists(),
        where=f"distill.teacher: {teacher.run_dir}",
        found="no tokenizer",
        expected="that of the student, for ids that mean the same words",
    )
    saved_tokenizer(teacher.run_dir, teacher.checkpoint)
    record = checkpoint.read_meta(teacher.checkpoint)
    check_fingerprint(teacher.checkpoint, record, tokenizer.fingerprint, where=where)


def check_models(settings: DistillConfig, student: ModelConfig, teacher: ModelConfig) -> None:
    """Raise `UserError` for the first term that two models cannot be compared by."""
    if settings.soft_weight > 0:
        _check_masked_words(student, teacher)
    check_layer_terms(settings, student, teacher)


def check_layer_terms(settings: DistillConfig, student: ModelConfig, teacher: ModelConfig) -> None:
    """Raise `UserError` for the first term by which the layers of both cannot be compared."""
    if settings.cosine_weight > 0:
        _check_equal("cosine_weight", "hidden_size", student, teacher)
    if settings.attention_weight > 0:
        _check_equal("attention_weight", "num_attention_heads", student, teacher)
    if settings.relation_weight > 0:
        _check_relations(settings, student, teacher)


def _check_masked_words(student: ModelConfig, teacher: ModelConfig) -> None:
    for name, model in (("distill.teacher", teacher), ("model", student)):
        check(
            "mlm" in model.heads,
            where=f"{name}: heads",
            found=", ".join(model.heads) or "none",
            expected="mlm, for distill.soft_weight above 0",
        )
    _check_equal("soft_weight", "vocab_size", student, teacher)


def _check_equal(weight: str, field: str, student: ModelConfig, teacher: ModelConfig) -> None:
    check(
        getattr(student, field) == getattr(teacher, field),
        where=f"model.{field}",
        found=getattr(student, field),
        expected=f"the teacher's {getattr(teacher, field)}, for distill.{weight} above 0",
    )


def _check_relations(settings: DistillConfig, student: ModelConfig, teacher: ModelConfig) -> None:
    check(
        settings.relation_layer <= teacher.num_hidden_layers,
        where="distill.relation_layer",
        found=settings.relation_layer,
        expected=f"at most {teacher.num_hidden_layers}, the teacher's layers",
    )
    heads = settings.relation_heads or teacher.num_attention_heads
    # The queries of all heads together, and the keys and values.
    for name, model in (("student", student), ("teacher", teacher)):
        for count in (model.num_attention_heads, model.key_value_heads):
            width = count * model.head_width
            check(
                width % heads == 0,
                where="distill.relation_heads",
                found=heads,
                expected=f"a divisor of {width}, a width of the {name}",
            )
