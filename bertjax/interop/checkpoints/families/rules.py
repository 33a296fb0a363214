"""Rules by which the fields of a config.json and those of `ModelConfig` follow from each other.

A config.json is an untrusted file. A field for which bertjax would compute something else is
refused.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bertjax.config import ModelConfig
from bertjax.config.field_types import shown
from bertjax.config.layers import BIASES
from bertjax.errors import UserError, check, mismatch

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""`hidden_act` of transformers to that of bertjax; of two with one meaning the first is written."""


class Values:
    """The fields of a config.json; null stands for the default, as in `transformers`."""

    def __init__(self, values: Mapping[str, Any], where: str, names: Mapping[str, str]):
        """Take the fields; `where` is the name of their file, for errors.

        `names` are other names of fields, to the names that the rules have. Of a field with both
        names the one that the rules have counts, as in `transformers`.
        """
        self.where = where
        self._values = {name: value for name, value in values.items() if value is not None}
        for other, name in names.items():
            if other in self._values:
                self._values.setdefault(name, self._values[other])

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a field."""
        return self._values.get(name, default)

    def replaced(self, fields: Mapping[str, Any]) -> "Values":
        """Return the fields of config.json with these in the place of its own."""
        return Values({**self._values, **fields}, self.where, {})

    def refused(self, name: str, expected: str, found: Any = None) -> UserError:
        """Return the error for a field; `found` is its value if not given."""
        value = self.get(name) if found is None else found
        return mismatch(where=f"{self.where}: {name}", found=shown(value), expected=expected)

    def one_of(self, name: str, default: str, names: Collection[str]) -> str:
        """Return the value of a field that is one of `names`."""
        value = self.get(name, default)
        # A list of an untrusted file has no hash.
        if not isinstance(value, str) or value not in names:
            raise self.refused(name, f"one of {', '.join(names)}", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return the value of a field that is true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.refused(name, "true or false", value)
        return value

    def count(self, name: str, default: int) -> int:
        """Return the value of a field that is a number, 0 or more."""
        value = self.get(name, default)
        # JSON's true is an int to isinstance.
        if type(value) is not int or not 0 <= value < 2**31:
            raise self.refused(name, "a whole number from 0 on", value)
        return value


class Rule:
    """Some fields of config.json, and the fields of `ModelConfig` that mean the same."""

    def read(self, values: Values) -> dict[str, Any]:
        """Return fields of `ModelConfig`."""
        return {}

    def check(self, values: Values, config: ModelConfig) -> None:
        """Raise `UserError` for a field that does not fit the whole configuration."""

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """Return fields of config.json."""
        return {}


@dataclass(frozen=True)
class Copy(Rule):
    """A field with the same value in both."""

    name: str
    default: Any
    """The value where the field is left out; None: it must not be."""
    field: str = ""
    """The field of `ModelConfig`, if it has another name."""

    def read(self, values: Values) -> dict[str, Any]:
        value = values.get(self.name, self.default)
        if value is None:
            raise values.refused(self.name, "a value")
        return {self.field or self.name: value}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {self.name: getattr(config, self.field or self.name)}


@dataclass(frozen=True)
class Positive(Copy):
    """A field with the same value in both that the family cannot leave out."""

    def check(self, values: Values, config: ModelConfig) -> None:
        value = getattr(config, self.field or self.name)
        if value < 1:
            raise values.refused(self.name, "1 or more", value)


def copies(**defaults: Any) -> tuple[Rule, ...]:
    """Return rules for fields with the same name, from the name to the default."""
    return tuple(Copy(name, default) for name, default in defaults.items())


@dataclass(frozen=True)
class Only(Rule):
    """A field with values that change nothing; with others, something else is computed."""

    name: str
    accepted: tuple[Any, ...]
    """The values; None: the field may be left out."""
    written: bool = False
    """Whether an export writes the first value."""

    def read(self, values: Values) -> dict[str, Any]:
        value = values.get(self.name)
        # In Python 0 equals False.
        if not any(value == known and type(value) is type(known) for known in self.accepted):
            expected = "no such field" if self.accepted == (None,) else repr(self.accepted[0])
            raise mismatch(
                where=f"{values.where}: {self.name}",
                found=shown(value),
                expected=f"{expected}: bertjax computes nothing else",
            )
        return {}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {self.name: self.accepted[0]} if self.written else {}


@dataclass(frozen=True)
class Activation(Rule):
    """The name of an activation."""

    name: str
    default: str
    fields: tuple[str, ...] = ("hidden_act",)
    """The fields of `ModelConfig` that have it; an export takes the first."""

    def read(self, values: Values) -> dict[str, Any]:
        own = ACTIVATIONS[values.one_of(self.name, self.default, ACTIVATIONS)]
        return dict.fromkeys(self.fields, own)

    def write(self, config: ModelConfig) -> dict[str, Any]:
        own = getattr(config, self.fields[0])
        if own == "same":
            own = config.hidden_act
        names = [name for name, meaning in ACTIVATIONS.items() if meaning == own]
        # No name: the field is left out, and what is read again differs from `config`.
        return {self.name: names[0]} if names else {}


@dataclass(frozen=True)
class Translated(Rule):
    """A field with names of its own for the values of a field of `ModelConfig`."""

    name: str
    default: str
    field: str
    meanings: Mapping[str, Any]
    """From the values in config.json; of two with one meaning the first is written."""

    def read(self, values: Values) -> dict[str, Any]:
        return {self.field: self.meanings[values.one_of(self.name, self.default, self.meanings)]}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        own = getattr(config, self.field)
        names = [name for name, meaning in self.meanings.items() if meaning == own]
        return {self.name: names[0]} if names else {}


@dataclass(frozen=True)
class Biases(Rule):
    """Fields that say of parts of the model whether they have biases."""

    flags: Mapping[str, tuple[bool, tuple[str, ...]]]
    """From a field's name to its default and the parts."""
    always: tuple[str, ...] = ()
    """Parts that always have biases."""

    def read(self, values: Values) -> dict[str, Any]:
        parts = set(self.always)
        for name, (default, named) in self.flags.items():
            if values.flag(name, default):
                parts |= set(named)
        return {"biases": tuple(part for part in BIASES if part in parts)}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        # A head that the model has not says nothing of its part.
        absent = {"mlm", "mlm_transform"} if "mlm" not in config.heads else set()
        absent |= {"pooler"} if "pooler" not in config.heads else set()
        written: dict[str, Any] = {}
        for name, (default, named) in self.flags.items():
            told = [part in config.biases for part in named if part not in absent]
            written[name] = all(told) if told else default
        return written


@dataclass(frozen=True)
class HeadWidth(Rule):
    """The width of an attention head, which must be the hidden size by the number of heads."""

    name: str
    written: bool = False

    def check(self, values: Values, config: ModelConfig) -> None:
        width = values.get(self.name, config.head_width)
        check(
            width == config.head_width,
            where=f"{values.where}: {self.name}",
            found=shown(width),
            expected=f"{config.head_width}, the hidden size by the number of heads",
        )

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {self.name: config.head_width} if self.written else {}


@dataclass(frozen=True)
class AnyHeadWidth(Rule):
    """The width of an attention head, which the class takes from this field."""

    name: str
    hidden_size: int = 768
    num_attention_heads: int = 12
    """What the class has where config.json leaves these out."""

    def read(self, values: Values) -> dict[str, Any]:
        width = values.count(self.name, 0)
        heads = values.count("num_attention_heads", self.num_attention_heads)
        # Of a file without pruned heads the field says nothing new.
        is_usual = width * heads == values.get("hidden_size", self.hidden_size)
        return {"attention_head_size": 0 if is_usual else width}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        if config.attention_width == config.hidden_size:
            return {}
        return {self.name: config.head_width}


@dataclass(frozen=True)
class Tied(Rule):
    """Whether the head for masked words has the word embeddings, which it must as the family does.

    `transformers` has one field for all models, whether or not they have this head. But a file
    with a tied head that should be free lacks its matrix, and looks like one without the head.
    """

    tied: bool = True
    default: bool = True

    def check(self, values: Values, config: ModelConfig) -> None:
        value = values.get("tie_word_embeddings", self.default)
        check(
            value is self.tied or (self.tied and "mlm" not in config.heads),
            where=f"{values.where}: tie_word_embeddings",
            found=shown(value),
            expected=f"{self.tied}, for its head",
        )

    def write(self, config: ModelConfig) -> dict[str, Any]:
        # `transformers` compares nothing with its default where the field is left out.
        return {} if self.tied == self.default else {"tie_word_embeddings": self.tied}


def with_rule(rules: tuple[Rule, ...], old: Rule, new: Rule) -> tuple[Rule, ...]:
    """Return the rules with `new` in the place of `old`."""
    return tuple(new if rule == old else rule for rule in rules)


NO_DECODER = Only("is_decoder", (False, None))
"""Rule that tokens attend to those after them."""
COMMON: tuple[Rule, ...] = (
    Only("transformers_weights", (None,)),  # the name of another file with the weights
    Only("quantization_config", (None,)),  # weights of integers with scales
    Only("pruned_heads", ({}, None)),  # attention heads that some layers lack
    NO_DECODER,
    Only("add_cross_attention", (False, None)),  # attention to the output of an encoder
)
"""Rules for fields that any config.json may have."""
