"""Content of a `tokenizer.json`: its entries, added tokens, and the names of special tokens."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.data.tokenizers.declared.added import Added, added_by_settings, content_of
from bertjax.data.tokenizers.vocabulary import (
    ALBERT_TOKENS,
    ROBERTA_TOKENS,
    ROLES,
    SPECIAL_TOKENS,
)
from bertjax.errors import check

Json = Mapping[str, Any]
"""An object from a JSON file; its values may be of any type."""
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


def read_content(file: str, engine: Json, settings: Json) -> Content:
    """Return a file's content; `settings` are those beside it, which may add tokens.

    Raises `UserError`, naming the field, for a model that is not of `MODELS`, for ids with gaps,
    and for special tokens that are missing or are one token in two roles.
    """
    sections = {name: section(file, engine, name) for name in _SECTIONS}
    model = {"type": _guessed(sections["model"]), **sections["model"]}
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
    # Random merges would give a text other ids each time.
    dropout = model.get("dropout")
    check(not dropout, where=f"{file}: dropout", found=dropout, expected="none")
    ids: dict[str, int] = dict(model["vocab"])
    _check_gapless(file, ids)
    added = _merged(file, engine.get("added_tokens") or [], added_by_settings(settings), ids)
    special = _special(file, ids, settings)
    _check_unknown(file, model, special)
    content: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None}
    content |= {"added_tokens": added}
    # `null` and not an empty object is a section that is not there.
    content |= {name: values or None for name, values in sections.items()}
    return Content(file, content | {"model": model}, ids, special)


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


def _merged(
    file: str, listed: object, others: Sequence[Added], ids: dict[str, int]
) -> list[dict[str, Any]]:
    """The added tokens of the file and of the settings; `ids` gets those that it lacks."""
    if not isinstance(listed, list):
        check(False, where=f"{file}: added_tokens", found=repr(listed)[:80], expected="a list")
        return []
    tokens: dict[str, dict[str, Any]] = {}
    for token in listed:
        name = content_of(token)
        check(name, where=f"{file}: added_tokens", found=repr(token)[:80], expected="tokens")
        _place(file, name, token.get("id"), ids)
        tokens[name] = dict(token)
    for other in others:
        # Flags of `added_tokens_decoder` count before those of the file; other settings after them.
        if other.content in tokens and other.id is None:
            continue
        _place(file, other.content, other.id, ids)
        fields = {"id": ids[other.content], "content": other.content, **other.flags}
        tokens[other.content] = {**tokens.get(other.content, {}), **fields}
    return list(tokens.values())


def _place(file: str, name: str, declared: object, ids: dict[str, int]) -> None:
    """Put a token into `ids` with its id; the next one where it declares none."""
    place = ids.get(name, len(ids))
    # `isinstance` would take JSON's true for the id 1.
    agrees = declared is None or (type(declared) is int and declared == place)
    check(
        agrees,
        where=file,
        found=f"the token {name!r} of id {str(declared)[:20]} added to {len(ids)} entries",
        expected=f"the id {place}",
    )
    ids[name] = place


def _check_gapless(file: str, ids: Mapping[str, int]) -> None:
    integers = all(type(i) is int for i in ids.values())
    check(
        integers and sorted(ids.values()) == list(range(len(ids))),
        where=file,
        found=f"{len(ids)} entries with ids that are not 0 to {len(ids) - 1}, each once",
        expected="ids without gaps",
    )


def _special(file: str, ids: Mapping[str, int], settings: Json) -> tuple[str, ...]:
    """The names of the special tokens: those of the settings, and for others the usual ones."""
    given = {role: content_of(settings.get(f"{role}_token")) for role in ROLES}
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
        unknown in (None, expected),
        where=f"{file}: unk_token",
        found=repr(unknown),
        expected=f"{expected!r}, as the special token",
    )
