"""What the files of a family look like: names of tensors, fields of config.json, classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bertjax.config import Head
from bertjax.interop.checkpoints.families.rules import Rule

TASK_HEAD = "task_head"
"""Name of the group that holds a fine-tuned task's head in exported parameters."""
SIGNS_OF_HEAD: Mapping[Head, tuple[str, ...]] = {
    "pooler": ("pooler/kernel",),
    "mlm": ("mlm/bias", "mlm/decoder", "mlm/transform/kernel"),
    "nsp": ("nsp/kernel",),
    "rtd": ("rtd/output/kernel",),
}
"""Parameters of the heads; a family that has a head has one of them at least."""


@dataclass(frozen=True)
class Packed:
    """One of several matrices that are joined along their outputs to one tensor."""

    module: str
    """Name of the module that has the tensor."""
    index: int
    """Place of the matrix among those that are joined."""
    count: int
    """Number of matrices that are joined."""
    per_head: bool = False
    """Whether the outputs of each attention head are joined by themselves."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names of the tensors of a family, with `{}` for the number of the layer.

    A path is bertjax's, such as `encoder/layers/mlp/up/kernel`.
    """

    prefix: str
    """Beginning of the encoder's names; a file with only the encoder leaves it out."""
    modules: Mapping[str, str | Packed]
    """From the path of a module to its name; the last part of a path is no part of the module."""
    tensors: Mapping[str, str] = field(default_factory=dict)
    """From the path of a parameter to the name of a tensor that does not follow from its module."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """From the name of a tied copy to the path of the parameter that it copies."""
    has_copies: bool = False
    """Whether an export writes the copies too."""
    ignored: tuple[str, ...] = ()
    """Endings of the names of tensors that are no parameters, such as constant buffers."""
    not_in_first: frozenset[str] = frozenset()
    """Paths of the modules that the first layer does not have."""
    rows: frozenset[str] = frozenset()
    """Paths of matrices each row of which is a tensor; row i has its first i + 2 elements."""

    def has(self, path: str) -> bool:
        """Return whether the family has a tensor for a parameter."""
        return path in self.tensors or path.rpartition("/")[0] in self.modules


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family as other programs read and write it."""

    name: str
    """The name in `config/families.py`; in config.json too where there is no `model_type`."""
    rules: tuple[Rule, ...]
    """Rules by which config.json and `ModelConfig` follow from each other."""
    names: tuple[Names, ...]
    """Names of the tensors; where there are several, an export has the first."""
    classes: Mapping[str, frozenset[Head]]
    """Classes and their heads, most heads first; the class without a head is the encoder alone."""
    tasks: Mapping[str, Mapping[str, str]]
    """From the ending of a class for a task to the modules that it has under other names."""
    task_class: str = ""
    """Beginning of the names of the classes for tasks."""
    pooler_in_encoder: bool = False
    """Whether the encoder has the pooler; otherwise only the classes for tasks have it."""
    head_dropout: tuple[str, ...] = ()
    """Fields of config.json with the dropout rate before the heads of tasks."""
    special_ids: Mapping[str, str] = field(default_factory=dict)
    """Fields of config.json with ids whose defaults are those of one tokenizer, to their roles."""
    model_type: str = ""
    """The `model_type` in config.json, if it is another than the name."""
    in_flax: bool = False
    """Whether `transformers` 4 had the family in Flax."""
    has_class: bool = True
    """Whether `transformers` has classes of the family."""
    telling_fields: tuple[str, ...] = ()
    """Fields that tell the family in a config.json without `model_type`."""
    other_names: tuple[str, ...] = ()
    """Other values of `model_type` that mean the family."""
    other_fields: Mapping[str, str] = field(default_factory=dict)
    """From names that the authors' own code has for fields to those of `transformers`."""


PLAIN_TASKS: Mapping[str, Mapping[str, str]] = {
    "SequenceClassification": {TASK_HEAD: "classifier"},
    "TokenClassification": {TASK_HEAD: "classifier"},
    "QuestionAnswering": {TASK_HEAD: "qa_outputs"},
    "MultipleChoice": {TASK_HEAD: "classifier"},
}
"""Names of the linear layer of a task, where a family has each class and no layer more."""
WITHOUT_QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "SequenceClassification": {TASK_HEAD: "classifier"},
    "TokenClassification": {TASK_HEAD: "classifier"},
}
"""The same for the families whose classes are these two."""


def under(prefix: str, modules: Mapping[str, str | Packed]) -> dict[str, str | Packed]:
    """Return modules whose names begin with `prefix`."""
    named: dict[str, str | Packed] = {}
    for path, module in modules.items():
        if isinstance(module, Packed):
            named[path] = Packed(
                f"{prefix}{module.module}", module.index, module.count, module.per_head
            )
        else:
            named[path] = f"{prefix}{module}"
    return named


def in_layers(layer: str, modules: Mapping[str, str | Packed]) -> dict[str, str | Packed]:
    """Return the modules of the layers by their whole paths and names.

    `layer` is the name of a layer, with `{}` for its number.
    """
    return {f"encoder/layers/{path}": name for path, name in under(f"{layer}.", modules).items()}


def packed(module: str, *paths: str, per_head: bool = False) -> dict[str, Packed]:
    """Return the paths of matrices that are joined in one tensor, in this order."""
    count = len(paths)
    return {path: Packed(module, i, count, per_head) for i, path in enumerate(paths)}
