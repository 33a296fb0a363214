"""Content of a `tokenizer.json`: its entries, added tokens, and the names of special tokens."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.data.tokenizers.byte_bpe import by_id
from bertjax.data.tokenizers.declared.roles import named_roles
from bertjax.data.tokenizers.given.token_json import Listed, json_of
from bertjax.errors import check
from bertjax.storage import Json

MODELS = ("WordPiece", "BPE", "Unigram")
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
    roles: Mapping[str, str]
    """The name of the special token of each role, in the order of `ROLES`. One token may have
    several roles; the role of unknown text need not have one."""
    raw: bytes
    """The file's bytes; empty where they are not known."""

    @property
    def special(self) -> tuple[str, ...]:
        """The names of the special tokens, each once, in the order of `ROLES`."""
        return tuple(dict.fromkeys(self.roles.values()))

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


def read_content(
    file: str, engine: Json, settings: Json, listed: Sequence[Listed], raw: bytes = b""
) -> Content:
    """Return a file's content with the tokens that are `listed` in it and beside it.

    `settings` are those beside it, which name the special tokens; `raw` is the file itself. Raises
    `UserError`, naming the field, for a model that is not of `MODELS`, for ids with gaps, and for
    special tokens that are missing or have two roles that must differ.
    """
    model = read_model(file, engine)
    sections = {name: section(file, engine, name) for name in _SECTIONS}
    # Random merges would give a text other ids each time.
    dropout = model.get("dropout")
    check(not dropout, where=f"{file}: dropout", found=dropout, expected="none")
    # `transformers` would not find special tokens in text then, but find them as entries.
    splits = settings.get("split_special_tokens", False)
    check(splits is False, where=f"{file}: split_special_tokens", found=splits, expected="false")
    ids = model_ids(model)
    unknown = unknown_token(model)
    added = [_added(token, ids) for token in listed]
    roles = named_roles(file, ids, settings, unknown, sections["post_processor"])
    _check_unknown(file, unknown, ids, model, roles)
    content: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None}
    content |= {"added_tokens": added}
    # `null` and not an empty object is a section that is not there.
    content |= {name: values or None for name, values in sections.items()}
    return Content(file, content | {"model": model}, ids, roles, raw)


def read_model(file: str, engine: Json) -> dict[str, Any]:
    """Return the model of a file; `UserError` unless it is of `MODELS`, with ids without gaps."""
    values = section(file, engine, "model")
    model = {"type": _guessed(values), **values}
    check(
        model["type"] in MODELS,
        where=file,
        found=f"a model of type {model['type']!r}",
        expected="one of " + ", ".join(MODELS),
    )
    if model["type"] == "Unigram":
        _check_scored(file, model)
        return model
    check(
        isinstance(model.get("vocab"), dict),
        where=file,
        found=f"a vocabulary of type {type(model.get('vocab')).__name__}",
        expected="an object of ids",
    )
    by_id(file, model["vocab"])
    return model


def model_ids(model: Json) -> dict[str, int]:
    """Return the ids of a model's entries; a Unigram has a list of entries with their scores."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        return {entry: i for i, (entry, _) in enumerate(vocab)}
    return dict(vocab)


def unknown_token(model: Json) -> str | None:
    """Return the entry of a model that stands for unknown text; None where it has none."""
    if model["type"] != "Unigram":
        name: str | None = model.get("unk_token")
        return name
    entry: str = model["vocab"][model["unk_id"]][0]
    return entry


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
    if "unk_id" in model:
        return "Unigram"
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


def _check_scored(file: str, model: Json) -> None:
    """Refuse a Unigram without a list of scored entries, or without an entry for unknown text."""
    vocab: Any = model.get("vocab")
    unknown: Any = model.get("unk_id")
    check(
        isinstance(vocab, list),
        where=f"{file}: vocab",
        found=type(vocab).__name__,
        expected="a list of entries with their scores",
    )
    wrong = [entry for entry in vocab if not _is_scored(entry)]
    check(
        not wrong,
        where=f"{file}: vocab",
        found=repr(wrong[:1])[:80],
        expected="entries, each a text and its score",
    )
    entries = [entry for entry, _ in vocab]
    check(
        len(set(entries)) == len(entries),
        where=f"{file}: vocab",
        found="an entry that stands there twice",
        expected="each once",
    )
    check(
        # `isinstance` would take JSON's true for the id 1.
        type(unknown) is int and 0 <= unknown < len(vocab),
        where=f"{file}: unk_id",
        found=repr(unknown),
        expected="the id of the entry for unknown text: the package ends with an error without it",
    )


def _is_scored(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    name, score = entry
    return isinstance(name, str) and type(score) in (int, float)


def _check_unknown(
    file: str, unknown: str | None, ids: Mapping[str, int], model: Json, roles: Mapping[str, str]
) -> None:
    """Refuse a model whose token for unknown text is not that of the settings."""
    # A model of byte-level BPE need not have one.
    if unknown is None:
        return
    expected = roles.get("unk")
    check(
        unknown == expected and ids[unknown] < len(model["vocab"]),
        where=f"{file}: unk_token",
        found=repr(unknown),
        expected=f"{expected!r}, as the special token, and it in the vocabulary",
    )
