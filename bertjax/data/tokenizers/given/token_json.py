"""A registered token as JSON files have it: a text, or an object with flags."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tokenizers import AddedToken

from bertjax.data.tokenizers.vocabulary import check_bool
from bertjax.errors import mismatch

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Listed(NamedTuple):
    """A token as a file lists it."""

    where: str
    """The file and field, for errors."""
    token: AddedToken
    id: Any
    """The id that the file gives it, of any type; None: the file gives none."""
    is_found: bool = True
    """False: the token has an id, but text that spells it is divided as other text is."""

    def may_have(self, i: int) -> bool:
        """Return whether the file gives the token this id, or none."""
        # `isinstance` would take JSON's true for the id 1.
        return self.id is None or (type(self.id) is int and self.id == i)


def token_of(where: str, value: object) -> AddedToken:
    """Return the token that a JSON value stands for: its text, or an object with flags.

    Raises `UserError`, naming `where`, for any other value.
    """
    content = value.get("content") if isinstance(value, Mapping) else value
    # JSON can spell half of a surrogate pair, which is no text.
    if not isinstance(content, str) or _SURROGATE.search(content):
        raise mismatch(where=where, found=repr(value)[:80], expected="a token's text or object")
    if not isinstance(value, Mapping):
        return AddedToken(content, special=True)
    flags = {name: value[name] for name in FLAGS if name in value}
    for name, flag in flags.items():
        check_bool(f"{where}: {name}", flag)
    # Without "normalized" in the file a special token is found in the text as it is written.
    return AddedToken(content, **flags)


def json_of(token: AddedToken) -> dict[str, Any]:
    """Return a token as JSON files have it: its content and flags."""
    return {"content": token.content, **{name: getattr(token, name) for name in FLAGS}}


def as_special(value: object) -> object:
    """Return a token's object with the flag of special tokens; a text stays as it is."""
    return {**value, "special": True} if isinstance(value, Mapping) else value
