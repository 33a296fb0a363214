"""Tokenized documents as work units write them, each word a sentence."""

import numpy as np
from etils import epath

from bertjax.config import Config, DataConfig
from bertjax.data.preparation import documents as docs
from bertjax.data.preparation import tokenize_corpus
from bertjax.data.preparation.documents import Documents
from bertjax.data.preparation.inputs.document_pool import TokenizedCorpus
from bertjax.data.preparation.shard_assignment import plan_shards
from bertjax.data.row_layout import bert_layout

DATA = DataConfig(max_seq_length=64, max_predictions_per_seq=10)


def documents_of(texts):
    """Make a document of each text: a sentence a word, of as many tokens as it has letters."""
    words = [text.split() for text in texts]
    lengths = [len(word) for document in words for word in document]
    digests = b"".join(docs.digest(document) for document in words)
    return Documents(
        np.frombuffer("".join("".join(document) for document in words).encode(), np.uint8).astype(
            np.int32
        ),
        docs.offsets_of(np.array(lengths)),
        docs.offsets_of(np.array([len(document) for document in words])),
        np.frombuffer(digests, np.uint8).reshape(-1, 16),
    )


def texts_of(documents, numbers):
    """Return the texts of documents, the inverse of `documents_of`."""
    texts = []
    for number in numbers:
        words = []
        for sentence in range(documents.documents[number], documents.documents[number + 1]):
            begin, end = documents.sentences[sentence : sentence + 2]
            words.append(bytes(documents.tokens[begin:end].astype(np.uint8)).decode())
        texts.append(" ".join(words))
    return texts


def tokenized(folder, parts, shards=6, fraction=0.0, tokens=None, preparation="one"):
    """Write parts of texts as work units do, each in a unit of its own."""
    plan = plan_shards(
        Config(data=DataConfig(num_shards=shards, validation_fraction=fraction)), text_bytes=0
    )
    names = [f"unit{number}" for number in range(len(parts))]
    count = 0
    for name, texts in zip(names, parts, strict=True):
        documents = documents_of(texts)
        count += len(documents.tokens)
        path = epath.Path(folder) / ".work" / name
        path.mkdir(parents=True, exist_ok=True)
        tokenize_corpus._write_part(path / "part-00000", documents, plan)
    plan = plan.pooled(count if tokens is None else tokens)
    layout = bert_layout(2, 3)
    return TokenizedCorpus(str(folder), tuple(names), layout, plan, False, preparation)


def digests_of(texts):
    return np.sort(np.frombuffer(b"".join(docs.digest(text.split()) for text in texts), "V16"))


def some_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghij"))
    texts = []
    for _ in range(count):
        words = ["".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(4)]
        texts.append(" ".join(words))
    return texts
