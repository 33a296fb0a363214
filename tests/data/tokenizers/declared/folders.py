"""Folders with a `tokenizer.json` of many rules, made of two small vocabularies."""

import copy
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.data.tokenizers.test_byte_bpe import TRAINED as BYTE_BPE
from tests.data.tokenizers.test_tokenizer import TRAINED

GENERAL = {"tokenizer_class": "PreTrainedTokenizerFast"}
BERT_ROLES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}  # fmt: skip
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}  # fmt: skip


def engine_of(tokenizer, folder):
    tokenizer.save(folder)
    return json.loads((folder / "tokenizer.json").read_text())


def put(folder, engine, settings=None, **others):
    """Write a folder; `others` are files of JSON by their names without the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"tokenizer": engine, "tokenizer_config": GENERAL if settings is None else settings}
    for name, values in {**files, **others}.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def sequence(key, *steps):
    return {"type": "Sequence", key: [{"type": s} if isinstance(s, str) else s for s in steps]}


@cache
def _engine_text(kind):
    """The file of a tokenizer, saved once for all tests."""
    tokenizer = {"wordpiece": TRAINED["wordpiece"], "byte_bpe": BYTE_BPE}[kind]
    with TemporaryDirectory() as folder:
        return json.dumps(engine_of(tokenizer, Path(folder)))


def word_piece():
    return json.loads(_engine_text("wordpiece"))


def byte_bpe():
    return json.loads(_engine_text("byte_bpe"))


def add(engine, *tokens):
    """Add tokens after the entries; each is a content with the flags that are true."""
    size = len(engine["model"]["vocab"])
    for content, *true in tokens:
        i = engine["model"]["vocab"].get(content, size)
        size += i == size
        flags = FLAGS | dict.fromkeys(true, True)
        engine["added_tokens"].append({"id": i, "content": content, **flags})


def renamed(engine, names):
    """The same file with other names of entries, in the vocabulary and wherever it names them."""
    text = json.dumps(engine)
    for old, new in names.items():
        text = text.replace(json.dumps(old), json.dumps(new))
    return json.loads(text)


def prefixed(engine, prefix):
    """The same file with another mark of the pieces that continue a word."""
    engine = copy.deepcopy(engine)
    vocab = engine["model"]["vocab"]
    engine["model"]["vocab"] = {
        prefix + entry[2:] if entry.startswith("##") else entry: i for entry, i in vocab.items()
    }
    engine["model"]["continuing_subword_prefix"] = prefix
    engine["decoder"] = {"type": "WordPiece", "prefix": prefix, "cleanup": False}
    return engine
