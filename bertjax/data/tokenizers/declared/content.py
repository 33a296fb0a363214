"""Content of a `tokenizer.json`: its entries, added tokens, and the names of special tokens."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.data.tokenizers.byte_bpe import by_id
from bertjax.data.tokenizers.given.token_json import Listed, json_of
from bertjax.data.tokenizers.vocabulary import (
    ALBERT_TOKENS,
    ROBERTA_TOKENS,
    ROLES,
    SPECIAL_TOKENS,
)
from bertjax.errors import check
from bertjax.storage import Json

MODELS = ("WordPiece", "BPE")
# What decides the ids; the others say what is put around them, and how they are read back.
DECISIVE = ("normalizer", "pre_tokenizer", "model", "added_tokens")
_SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model")


class Content(NamedTuple):
    """A `tokenizer.json` whose vocabulary and special tokens were checked."""

    file: str
    """Its name, for errors."""
    engine: dict[str, Any]
    """The file, with the tokens that the settings beside it add; without limits of length."""
    ids: dict[str, int]
    """Every entry, added tokens included: 0 and up, without gaps."""
    special: tuple[str, ...]
    """The names of the special tokens, in the order of `ROLES`."""

    def entries(self) -> list[str]:
        """Return the entries in the order of their ids."""
        return sorted(self.ids, key=self.ids.__getitem__)

    def algorithm(self) -> str:
        """Return the type of the model: one of `MODELS`."""
        return str(self.engine["model"]["type"])

    def added(self) -> list[dict[str, Any]]:
        """Return the tokens that are found in text before it is divided."""
        tokens: list[dict[str, Any]] = self.engine["added_tokens"]
        return tokens


def read_content(file: str, engine: Json, settings: Json, listed: Sequence[Listed]) -> Content:
    """Return a file's content with the tokens that are `listed` in it and beside it.

    `settings` are those beside it, which name the special tokens. Raises `UserError`, naming the
    field, for a model that is not of `MODELS`, for ids with gaps, and for special tokens that are
    missing or are one token in two roles.
    """
    model = read_model(file, engine)
    sections = {name: section(file, engine, name) for name in _SECTIONS}
    # Random merges would give a text other ids each time.
    dropout = model.get("dropout")
    check(not dropout, where=f"{file}: dropout", found=dropout, expected="none")
    # `transformers` would not find special tokens in text then, but find them as entries.
    splits = settings.get("split_special_tokens", False)
    check(splits is False, where=f"{file}: split_special_tokens", found=splits, expected="false")
    ids: dict[str, int] = dict(model["vocab"])
    added = [_added(token, ids) for token in listed]
    special = _special(file, ids, settings)
    _check_unknown(file, model, special)
    content: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None}
    content |= {"added_tokens": added}
    # `null` and not an empty object is a section that is not there.
    content |= {name: values or None for name, values in sections.items()}
    return Content(file, content | {"model": model}, ids, special)


def read_model(file: str, engine: Json) -> dict[str, Any]:
    """Return the model of a file; `UserError` unless it is of `MODELS`, with ids without gaps."""
    values = section(file, engine, "model")
    model = {"type": _guessed(values), **values}
    check(
        model["type"] in MODELS,
        where=file,
        found=f"a model of type {model['type']!r}",
        expected="WordPiece or BPE, or spiece.model, from which it was made, beside it",
    )
    check(
        isinstance(model.get("vocab"), dict),
        where=file,
        found=f"a vocabulary of type {type(model.get('vocab')).__name__}",
        expected="an object of ids",
    )
    by_id(file, model["vocab"])
    return model


def section(file: str, engine: Json, name: str) -> Json:
    """Return a section of the file; an empty object where there is none."""
    values = engine.get(name) or {}
    check(
        isinstance(values, dict),
        where=f"{file}: {name}",
        found=type(values).__name__,
        expected="an object",
    )
    return values


def steps(values: Json | None) -> Iterator[Json]:
    """Yield the steps of a normalizer or pre-tokenizer, those inside sequences too."""
    if not values:
        return
    inner = values.get("normalizers", values.get("pretokenizers"))
    if values.get("type") != "Sequence" or not isinstance(inner, list):
        yield values
        return
    for step in inner:
        if isinstance(step, dict):
            yield from steps(step)


def _guessed(model: Json) -> str | None:
    """The type of a model in older files, which do not say it."""
    if "merges" in model:
        return "BPE"
    return "WordPiece" if "max_input_chars_per_word" in model else None


def _added(listed: Listed, ids: dict[str, int]) -> dict[str, Any]:
    """The token as a `tokenizer.json` has it; `ids` gets it where it is no entry of the model."""
    name = listed.token.content
    place = ids.get(name, len(ids))
    check(
        listed.may_have(place),
        where=listed.where,
        found=f"the token {name!r} of id {str(listed.id)[:20]} added to {len(ids)} entries",
        expected=f"the id {place}",
    )
    ids[name] = place
    return {"id": place, **json_of(listed.token)}


def _special(file: str, ids: Mapping[str, int], settings: Json) -> tuple[str, ...]:
    """The names of the special tokens: those of the settings, and for others the usual ones."""
    given = {role: _name(settings.get(f"{role}_token")) for role in ROLES}
    usual = _usual(ids, given)
    names = tuple(given[role] or name for role, name in zip(ROLES, usual, strict=True))
    for role, name in zip(ROLES, names, strict=True):
        check(
            name in ids,
            where=file,
            found=f"no {name} among {len(ids)} entries",
            expected=f"one, or the name of the special token in {role}_token",
        )
    check(
        len(set(names)) == len(ROLES),
        where=file,
        found="the special tokens " + " ".join(names),
        expected="another token for each of " + ", ".join(ROLES),
    )
    return names


def _name(token: object) -> str:
    """The text of a token, which is given as a text or as an object; empty where there is none."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else ""


def _usual(ids: Mapping[str, int], given: Mapping[str, str]) -> Sequence[str]:
    """The set of usual names of which least is missing, where the settings give none."""

    def missing(names: Sequence[str]) -> int:
        pairs = zip(ROLES, names, strict=True)
        return sum(not given[role] and name not in ids for role, name in pairs)

    return min((SPECIAL_TOKENS, ROBERTA_TOKENS, ALBERT_TOKENS), key=missing)


def _check_unknown(file: str, model: Json, special: Sequence[str]) -> None:
    """Refuse a model whose token for unknown text is not that of the settings."""
    unknown = model.get("unk_token")
    expected = special[ROLES.index("unk")]
    # A model of byte-level BPE need not have one.
    check(
        unknown is None or (unknown == expected and expected in model["vocab"]),
        where=f"{file}: unk_token",
        found=repr(unknown),
        expected=f"{expected!r}, as the special token, and it in the vocabulary",
    )
