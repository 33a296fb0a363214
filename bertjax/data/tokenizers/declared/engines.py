"""Engines of the `tokenizers` package, made of the content of a `tokenizer.json`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.declared.content import Content
from bertjax.data.tokenizers.given.merges import engine_merges
from bertjax.errors import UserError, one_line

# A character that no text has: Unicode keeps it free for uses inside a program.
_HIDDEN = "\U0010fffe"


def open_engine(file: str, content: Mapping[str, Any]) -> Engine:
    """Return the engine of a file's content; `UserError`, naming `file`, where there is none."""
    with engine_errors(file):
        return Engine.from_str(json.dumps(content))


@contextmanager
def engine_errors(file: str) -> Iterator[None]:
    """Turn what the package raises on a content that it does not expect into a `UserError`."""
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    # A panic of Rust is no `Exception`.
    except BaseException as error:
        raise UserError(
            f"{file}: cannot be read by the package tokenizers ({one_line(error)})"
        ) from error


def plain_engine(content: Content, names: Sequence[str]) -> Engine:
    """Return the engine that puts nothing around text, which for it never spells these names."""
    return open_engine(content.file, {**_hidden(content, names), "post_processor": None})


def _hidden(content: Content, names: Sequence[str]) -> dict[str, Any]:
    """A copy of the content in which these names are such as no text spells."""
    model = dict(content.engine["model"])
    made = _merged_pieces(content.file, model)
    new = {name: _HIDDEN + name for name in names if name not in made}
    vocab = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[new.get(entry, entry), score] for entry, score in vocab]
    else:
        model["vocab"] = {new.get(entry, entry): i for entry, i in vocab.items()}
    if model.get("unk_token"):
        model["unk_token"] = new.get(model["unk_token"], model["unk_token"])
    added = []
    for token in content.added():
        token = {**token, "content": new.get(token["content"], token["content"])}
        added.append(token)
    return {**content.engine, "model": model, "added_tokens": added}


def _merged_pieces(file: str, model: Mapping[str, Any]) -> set[str]:
    """The pieces that merges make, and that must keep their names."""
    prefix = model.get("continuing_subword_prefix") or ""
    merges = engine_merges(file, model.get("merges") or [])
    return {first + second.removeprefix(prefix) for first, second in merges}
