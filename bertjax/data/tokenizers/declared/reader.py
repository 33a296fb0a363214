"""Reader of a `tokenizer.json`: what it declares is run as it is.

Where its rules are BERT's or RoBERTa's, the tokenizer is the one that has them built in: it gives
the same ids, is faster, and is the one of runs that began before files were read in this way.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.byte_bpe import ByteBPE
from bertjax.data.tokenizers.declared.content import Content, read_content
from bertjax.data.tokenizers.declared.engines import open_engine
from bertjax.data.tokenizers.declared.inputs import (
    check_added_ends,
    inputs_of,
    uses_segments,
    warn_of_other_inputs,
)
from bertjax.data.tokenizers.declared.names import check_names
from bertjax.data.tokenizers.declared.rules import is_bert, is_roberta
from bertjax.data.tokenizers.declared.tokenizer import DeclaredTokenizer
from bertjax.data.tokenizers.given.listed_tokens import (
    all_settings,
    engine_tokens,
    listed_tokens,
)
from bertjax.data.tokenizers.given.merges import engine_merges
from bertjax.data.tokenizers.given.vocab_txt import read_entries
from bertjax.data.tokenizers.vocabulary import ENGINE_FILE, SETTINGS_FILE, read_vocabulary
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import check
from bertjax.storage import Json, read_json, read_json_if_there

Tokenizer = WordPiece | ByteBPE | DeclaredTokenizer


def read_declared(
    file: epath.Path, engine: Json, settings: Json, engine_first: bool = True
) -> Tokenizer:
    """Return the tokenizer that a folder's `tokenizer.json` declares, with its other `settings`.

    `engine_first` is that of `listed_tokens`: whether the folder has a general class. Raises
    `UserError`, naming the file and the field, for what cannot be reproduced.
    """
    folder = file.parent
    listed = listed_tokens(folder, settings, engine, engine_first)
    settings = all_settings(folder, settings)
    content = read_content(str(file), engine, settings, listed, read_vocabulary(file))
    return _tokenizer_of(content, settings, folder / SETTINGS_FILE)


def load_declared(folder: epath.Path, settings: Json, word_rule: int) -> DeclaredTokenizer:
    """Return the tokenizer that was saved in a folder, from its `tokenizer.json`."""
    file = folder / ENGINE_FILE
    engine = read_json(file)
    listed = engine_tokens(folder, engine)
    content = read_content(str(file), engine, settings, listed, read_vocabulary(file))
    inputs = inputs_of(content, _open_checked(content), uses_segments(settings))
    return DeclaredTokenizer(content, settings, inputs, word_rule)


def engine_in(path: epath.Path) -> Json | None:
    """Return the content of a `tokenizer.json` of any name; None for another file."""
    if path.suffix != ".json" or not path.exists():
        return None
    try:
        values = json.loads(read_vocabulary(path))
    except (ValueError, RecursionError):
        return None
    # A `vocab.json` may have an entry "model" too, with an id.
    is_engine = isinstance(values, dict) and isinstance(values.get("model"), dict)
    return values if is_engine else None


def open_declared(file: epath.Path, engine: Json) -> Tokenizer:
    """Return the tokenizer of a file that the user named.

    Settings beside a file of the usual name count too: they name the special tokens. Raises
    `UserError` where they say otherwise than the file how letters are treated.
    """
    if file.name != ENGINE_FILE:
        listed = engine_tokens(file.parent, engine)
        content = read_content(str(file), engine, {}, listed, read_vocabulary(file))
        return _tokenizer_of(content, {}, file)
    settings_file = file.parent / SETTINGS_FILE
    settings = read_json_if_there(settings_file)
    tokenizer = read_declared(file, engine, settings)
    letters = {"do_lower_case": tokenizer.lowercase, "strip_accents": tokenizer.strip_accents}
    for key, value in letters.items():
        given = settings.get(key)
        check(
            given in (None, value),
            where=f"{settings_file}: {key}",
            found=given,
            expected=f"{value}, as {file.name} declares",
        )
    return tokenizer


def vocab_lines(file: object, entries: Sequence[str]) -> bytes | None:
    """Return a `vocab.txt` of these entries; None if a line cannot hold one of them."""
    content = "".join(f"{entry}\n" for entry in entries).encode()
    return content if read_entries(file, content).entries == list(entries) else None


def _open_checked(content: Content) -> Engine:
    """Open the engine; `UserError` if it numbers added tokens otherwise than the file says."""
    model: Mapping[str, Any] = content.engine["model"]
    if content.algorithm() == "BPE":
        engine_merges(content.file, model.get("merges", []))
    engine = open_engine(content.file, content.engine)
    given = engine.get_vocab()
    wrong = [name for name, i in content.ids.items() if given.get(name) != i]
    check(
        not wrong,
        where=f"{content.file}: added_tokens",
        found=f"the id {content.ids[wrong[0]] if wrong else ''} of {wrong[:1]}",
        expected="ids in the order of the list, after those of the vocabulary",
    )
    return engine


def _tokenizer_of(content: Content, settings: Json, settings_file: epath.Path) -> Tokenizer:
    """The tokenizer of a content; `settings` are those of `settings_file`, beside it."""
    engine = _open_checked(content)
    inputs = inputs_of(content, engine, uses_segments(settings))
    form = inputs.form
    check_added_ends(content, engine, form, settings_file, settings)
    check_names(content)
    warn_of_other_inputs(content, engine, form)
    # As a vocab.txt, so that the fingerprint is that of the same entries in such a file.
    lines = vocab_lines(content.file, content.entries())
    if lines and is_bert(content) and form in ("none", "bert"):
        letters = content.engine["normalizer"]
        lowercase, accents = letters.get("lowercase", True), letters.get("strip_accents")
        return WordPiece(content.file, lines, lowercase, accents)
    if is_roberta(content) and form in ("none", "roberta"):
        merges = engine_merges(content.file, content.engine["model"].get("merges", []))
        prefix = content.engine["pre_tokenizer"].get("add_prefix_space") is True
        return ByteBPE(content.file, content.ids, merges, prefix)
    return DeclaredTokenizer(content, settings, inputs)
