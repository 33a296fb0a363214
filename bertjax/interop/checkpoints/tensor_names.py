"""Names and layouts of tensors in the formats of other programs.

A family has a table of names (`families/`). For each format a few rules give the rest of a name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bertjax.interop.checkpoints.families.family import Family, Names, Packed
from bertjax.interop.checkpoints.families.table import FAMILIES


class Place(NamedTuple):
    """Where a parameter lies: the name of the tensor, and which part of it."""

    name: str
    """The name, with `{}` for the number of the layer."""
    number: int = 0
    """Place among the matrices that are joined along their outputs."""
    joined: int = 1
    """Number of the matrices that are joined."""
    per_head: bool = False
    """Whether the outputs of each attention head are joined by themselves."""


@dataclass(frozen=True)
class Dialect:
    """Names and layouts of one family's tensors in one format.

    A path is bertjax's, such as `encoder/layers/mlp/up/kernel`; a name is the other format's.
    """

    names: Names
    """The family's table."""
    prefix: str
    """Beginning of the encoder's names; a file with only the encoder leaves it out."""
    place: Callable[[str], Place]
    """Return where the parameter of a path lies."""
    transposed: frozenset[str] | None
    """Paths of the matrices that the format keeps as [out, in]; None: all kernels."""

    def name(self, path: str) -> str:
        """Return the name of the tensor that has the parameter."""
        return self.place(path).name

    def has(self, path: str) -> bool:
        """Return whether the family has a tensor for `path`."""
        return self.names.has(path)

    def is_transposed(self, path: str) -> bool:
        """Return whether the format keeps the matrix at `path` as [out, in]."""
        if self.transposed is None:
            return path.endswith("/kernel")
        return path in self.transposed

    def ignores(self, name: str) -> bool:
        """Return whether a tensor is not a parameter but, for example, a constant buffer."""
        return name.endswith(self.names.ignored) if self.names.ignored else False


def _split_path(names: Names, path: str) -> tuple[str, str]:
    """Return the name of the module that has the parameter `path`, and the path's last part.

    The module's matrices are not joined with others.
    """
    module, _, leaf = path.rpartition("/")
    name = names.modules[module]
    assert isinstance(name, str)
    return name, leaf


def torch_dialect(
    family: str,
    task_class: str = "",
    form: int = 0,
    families: Mapping[str, Family] = FAMILIES,
) -> Dialect:
    """Return the names in PyTorch checkpoints of `transformers`, safetensors or `.bin`.

    With a `task_class` such as SequenceClassification the names include that of its head. `form` is
    the number of the family's table of names, and `families` the table of families.
    """
    names = families[family].names[form]
    modules = dict(names.modules)
    if task_class:
        modules |= families[family].tasks[task_class]

    def place(path: str) -> Place:
        if path in names.tensors:
            return Place(names.tensors[path])
        module, _, leaf = path.rpartition("/")
        found = modules[module]
        # PyTorch has one name, `weight`, for kernels, scales and tables of embeddings.
        ending = ".bias" if leaf == "bias" else ".weight"
        if isinstance(found, Packed):
            return Place(f"{found.module}{ending}", found.index, found.count, found.per_head)
        return Place(f"{found}{ending}")

    return Dialect(names, names.prefix, place, transposed=None)


def flax_dialect(family: str, task_class: str = "", form: int = 0) -> Dialect:
    """Return the names in `flax_model.msgpack` of `transformers` 4, joined by `/`.

    The modules have the names of PyTorch; the matrices have the layout of bertjax. There are no
    tied copies.
    """
    names = FAMILIES[family].names[form]

    def place(path: str) -> Place:
        module, leaf = _split_path(names, path)
        return Place(f"{module.replace('.', '/')}/{leaf}")

    without_copies = Names(prefix=names.prefix, modules=names.modules)
    return Dialect(without_copies, names.prefix.replace(".", "/"), place, transposed=frozenset())


# Names in the original BERT that do not follow from the table of modules.
_TENSORFLOW_NAMES = {
    "mlm/bias": "cls/predictions/output_bias",
    "nsp/kernel": "cls/seq_relationship/output_weights",
    "nsp/bias": "cls/seq_relationship/output_bias",
}


def tensorflow_dialect() -> Dialect:
    """Return the names in TensorFlow checkpoints of the original BERT."""
    names = FAMILIES["bert"].names[0]

    def place(path: str) -> Place:
        if path in _TENSORFLOW_NAMES:
            return Place(_TENSORFLOW_NAMES[path])
        module, leaf = _split_path(names, path)
        module = module.replace("layer.{}", "layer_{}").replace(".", "/")
        # The original's tables are variables in the scope of the embeddings; they have no scope of
        # their own.
        if leaf == "embedding":
            return Place(module)
        if module.endswith("LayerNorm"):
            leaf = {"scale": "gamma", "bias": "beta"}[leaf]  # TensorFlow's names
        return Place(f"{module}/{leaf}")

    return Dialect(
        Names(prefix="bert/", modules=names.modules),
        "bert/",
        place,
        # The original's script multiplies by the transpose of this matrix.
        transposed=frozenset({"nsp/kernel"}),
    )
