import dataclasses
import json
import random
from collections import Counter

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import Config, DataConfig, TokenizerConfig
from bertjax.data.corpus.sources import find_sources
from bertjax.data.corpus.work_units import make_work_units, read_documents
from bertjax.data.preparation import vocabulary_sample as sample
from bertjax.data.preparation.documents import digest
from bertjax.data.preparation.shard_assignment import plan_shards


@pytest.fixture
def documents():
    rng = random.Random(0)
    return [[f"sentence {n} {i} {rng.random()}" for i in range(8)] for n in range(600)]


def write(folder, documents, files):
    folder.mkdir()
    for number in range(files):
        own = documents[number::files]
        (folder / f"{number}.txt").write_text(
            "\n\n".join("\n".join(document) for document in own) + "\n"
        )
    return folder


def config_of(corpus, characters=10**6, **data):
    defaults = {"corpus": (str(corpus),), "validation_fraction": 0.1, "num_shards": 2}
    return Config(
        data=DataConfig(**defaults | data), tokenizer=TokenizerConfig(train_characters=characters)
    )


def taken(tmp_path, config, piece_bytes=10_000):
    """Return the sample that `take` and `read` give, the held-out documents, and all documents."""
    out = tmp_path / "out"
    work_units = make_work_units(find_sources(config.data), piece_bytes)
    whole = sum(work_unit.size for work_unit in work_units)
    plan = plan_shards(config, whole)
    for work_unit in work_units:
        sample.take(config, str(out), plan, work_unit, whole)
    read = [
        document
        for work_unit in work_units
        for document in read_documents(work_unit, config.data, Counter())
    ]
    digests = np.frombuffer(b"".join(map(digest, read)), np.uint8).reshape(-1, 16)
    held_out = [
        document for document, held in zip(read, plan.held_out(digests), strict=True) if held
    ]
    return (
        sample.read(
            epath.Path(out), [p.name for p in work_units], config.tokenizer.train_characters
        ),
        held_out,
        read,
    )


def test_the_sample_does_not_depend_on_the_order_of_documents_the_files_or_the_pieces(
    tmp_path, documents
):
    samples = []
    for number, (files, piece_bytes) in enumerate([(1, 10**9), (3, 10_000), (7, 50_000)]):
        random.Random(number).shuffle(documents)
        folder = tmp_path / str(number)
        corpus = write(folder, documents, files)
        samples.append(taken(folder, config_of(corpus, 30_000), piece_bytes)[0])
    assert len(samples[0]) > 100
    assert samples[0] == samples[1] == samples[2]


def test_held_out_documents_are_left_out_and_no_others_while_there_is_room(tmp_path, documents):
    sentences, held_out, _ = taken(tmp_path, config_of(write(tmp_path / "corpus", documents, 2)))
    assert 30 < len(held_out) < 100
    assert sorted(sentences) == sorted(
        s for document in documents if document not in held_out for s in document
    )


@pytest.mark.parametrize("characters", [5_000, 20_000, 80_000])
def test_about_so_many_characters_are_taken(tmp_path, documents, characters):
    assert sum(len(s) for document in documents for s in document) > 1.5 * characters
    sentences, _, _ = taken(
        tmp_path, config_of(write(tmp_path / "corpus", documents, 2), characters)
    )
    longest = max(sum(map(len, document)) for document in documents)
    assert 0.8 * characters <= sum(map(len, sentences)) < characters + longest
    written = sum(
        path.stat().st_size for path in (tmp_path / "out" / ".work" / sample.FOLDER).iterdir()
    )
    assert written < 1.8 * characters  # of which the digests and quotation marks are a part


def test_a_document_in_several_files_counts_once(tmp_path, documents):
    corpus = write(tmp_path / "corpus", documents[:20], 1)
    (corpus / "copy.txt").write_bytes((corpus / "0.txt").read_bytes())
    sentences, _, _ = taken(tmp_path, config_of(corpus, validation_fraction=0.0))
    assert sorted(sentences) == sorted(s for document in documents[:20] for s in document)


def test_what_is_taken_already_is_kept(tmp_path, documents):
    config = config_of(write(tmp_path / "corpus", documents, 2))
    first, _, _ = taken(tmp_path, config)
    files = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "out" / ".work" / sample.FOLDER).iterdir()
    }
    assert len(files) > 1
    other = dataclasses.replace(config.tokenizer, train_characters=len(first[0]))
    taken(tmp_path, dataclasses.replace(config, tokenizer=other))
    assert {path: path.stat().st_mtime_ns for path in files} == files


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_the_sentences_come_back_as_they_were(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("sample")
    texts = [*texts, "one\u2028line \x85", "\u4e2d\u6587"]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    sentences, _, read = taken(folder, config_of(folder / "a.jsonl", validation_fraction=0.0))
    once = {digest(document): document for document in read}
    assert sentences == [sentence for key in sorted(once) for sentence in once[key]]
