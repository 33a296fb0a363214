import json
import re
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.corpus.sources import find_sources
from bertjax.data.corpus.work_units import make_work_units
from bertjax.data.preparation.documents import digest
from bertjax.data.preparation.shard_assignment import bound_of, split_word
from bertjax.data.preparation.splits.bound import choose_bound, moved_bound
from bertjax.data.preparation.splits.count import Extremes, needed_documents
from bertjax.errors import UserError

words = st.integers(0, 2**64 - 2) | st.integers(0, 30)


def extremes_of(words):
    extremes = Extremes()
    for word in words:
        extremes.add(word, characters=7)
    return extremes


def heldout_of(documents, bound, needed):
    """Return the words held out, or None where there are too few documents."""
    if len(documents) < sum(needed.values()):
        return None
    value = moved_bound(bound, extremes_of(documents), needed).value
    return {word for word in documents if word < value}


@given(
    documents=st.sets(words, min_size=1, max_size=20),
    bound=st.integers(0, 40) | st.integers(0, 2**64 - 1),
    each=st.sampled_from([1, 2]),
    hold_out=st.booleans(),
)
def test_the_nearest_documents_fill_a_split_and_no_more_than_it_needs(
    documents, bound, each, hold_out
):
    needed = {"train": each, "validation": each if hold_out else 0}
    if len(documents) < sum(needed.values()):
        return
    moved = moved_bound(bound, extremes_of(documents), needed)
    by_hash = {word for word in documents if word < bound}
    heldout = {word for word in documents if word < moved.value}
    assert len(heldout) >= needed["validation"]
    assert len(documents - heldout) >= needed["train"]
    if len(by_hash) >= needed["validation"] and len(documents - by_hash) >= needed["train"]:
        assert heldout == by_hash
        assert not moved.moved
    elif len(by_hash) < needed["validation"]:
        assert heldout == set(sorted(documents)[: needed["validation"]])
        assert moved.moved == {"validation": len(heldout - by_hash)}
    else:
        assert documents - heldout == set(sorted(documents)[-needed["train"] :])
        assert moved.moved == {"train": len(by_hash - heldout)}


@given(
    documents=st.sets(words, min_size=1, max_size=12),
    more=st.sets(words, max_size=12),
    bound=st.integers(0, 40) | st.integers(0, 2**64 - 1),
    each=st.sampled_from([1, 2]),
)
def test_no_training_document_is_held_out_when_the_corpus_grows(documents, more, bound, each):
    """But where the hash gave training too few: what it lent goes back to the held-out split."""
    needed = {"train": each, "validation": each}
    before = heldout_of(documents, bound, needed)
    after = heldout_of(documents | more, bound, needed)
    if before is None or after is None:
        return
    lent = {word for word in documents if word < bound} - before
    assert after & (documents - before) <= lent
    # And a document that the hash itself holds out stays, as long as training has enough.
    if len([word for word in documents if word >= bound]) >= each:
        assert {word for word in documents if word < bound} <= after


TEXTS = [f"This is document {n}.\nIt has two sentences." for n in range(60)]


def choose(folder, texts, files=1, **data):
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for number in range(files):
        own = texts[number::files]
        if own:
            (corpus / f"{number}.txt").write_text("\n\n".join(own) + "\n")
    data = DataConfig(corpus=(str(corpus),), **data)
    (folder / ".work").mkdir()
    units = make_work_units(find_sources(data))
    return choose_bound(data, str(folder), units, lambda stage, items: [i.run() for i in items])


@pytest.mark.parametrize("fraction", [0, 0.02, 0.05, 0.5, 1])
@pytest.mark.parametrize("objective", ["next_sentence", "sentence_order", "none"])
@pytest.mark.parametrize("documents", [1, 2, 3, 4, 5, 20, 60])
def test_few_documents_give_both_splits_as_asked_or_a_line_that_says_what_to_set(
    documents, objective, fraction, tmp_path
):
    settings = {"validation_fraction": fraction, "sentence_objective": objective}
    for_training = 2 if objective == "next_sentence" else 1
    if fraction == 1:
        with pytest.raises(
            UserError, match=r"^data\.validation_fraction: found 1\.0, expected less"
        ):
            choose(tmp_path, TEXTS[:documents], **settings)
        return
    if documents < for_training + (fraction > 0):
        with pytest.raises(UserError, match=rf"^data\.corpus: found {documents} document") as e:
            choose(tmp_path, TEXTS[:documents], **settings)
        assert re.search(r"(validation_fraction 0|sentence_objective sentence_order)", str(e.value))
        assert "\n" not in str(e.value)
        return
    bound = choose(tmp_path, TEXTS[:documents], **settings)
    held = [split_word(digest(text.split("\n"))) < bound.value for text in TEXTS[:documents]]
    assert sum(not one for one in held) >= for_training
    if not fraction:
        assert not any(held)
    else:
        assert sum(held) >= min(for_training, documents - for_training)
    by_hash = [split_word(digest(t.split("\n"))) < bound_of(fraction) for t in TEXTS[:documents]]
    assert sum(bound.moved.values()) == sum(a != b for a, b in zip(held, by_hash, strict=True))


BOOK = "\n".join(f"Sentence {n} of the only document that there is." for n in range(100))


@pytest.mark.parametrize("data,ways", [
    ({}, "sentence_order or none with data.validation_fraction 0; or data.split_documents 390"),
    ({"validation_fraction": 0}, "sentence_order or none; or data.split_documents 390"),
    ({"sentence_objective": "none"}, r"1 document \(copies count once\), expected 1 to train on, and 1 to hold out; or data.validation_fraction 0; or data.split"),
    ({"split_documents": 5000}, "data.split_documents 390"),
    ({"format": "file"}, r"data.split_documents 390, which cuts long documents$"),
])  # fmt: skip
def test_every_way_out_that_is_named_for_one_document_is_one(tmp_path, data, ways):
    with pytest.raises(UserError, match=ways):
        choose(tmp_path / "before", [BOOK], **data)
    changes = [{"sentence_objective": "sentence_order"}]
    if data.get("validation_fraction", 1):
        changes = [change | {"validation_fraction": 0} for change in changes]
    changes.append({"split_documents": 390})
    for number, change in enumerate(changes):
        assert choose(tmp_path / str(number), [BOOK], **data | change)


@pytest.mark.parametrize("name,is_plain_text", [
    ("a.txt", True), ("a.jsonl", False), ("a.parquet", False), ("a.zip/a.txt", True), ("a.zip/a.jsonl", False),
])  # fmt: skip
def test_blank_lines_are_advised_for_plain_text_alone(tmp_path, name, is_plain_text):
    content = BOOK if is_plain_text else json.dumps({"text": BOOK}) + "\n"
    file, _, member = name.partition("/")
    path = tmp_path / file
    if member:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, content)
    elif name == "a.parquet":
        pq.write_table(pa.table({"text": [BOOK]}), path)
    else:
        path.write_text(content)
    data = DataConfig(corpus=(str(path),))
    with pytest.raises(UserError, match="found 1 document ") as caught:
        choose_bound(data, str(tmp_path), make_work_units(find_sources(data)), lambda *_: None)
    assert ("blank line" in str(caught.value)) == is_plain_text


def test_the_order_and_the_number_of_files_do_not_change_the_bound(tmp_path):
    bounds = {
        choose(tmp_path / "one", TEXTS[:20]).value,
        choose(tmp_path / "two", TEXTS[19::-1], files=3).value,
        choose(tmp_path / "three", [*TEXTS[:20], *TEXTS[5:9]], files=24).value,
        choose(tmp_path / "four", TEXTS[:20], num_shards=1, workers=2).value,
    }
    assert len(bounds) == 1


def test_the_bound_is_read_again_when_the_preparation_goes_on(tmp_path):
    bound = choose(tmp_path, TEXTS[:5])
    assert bound.moved == {"validation": 2}
    data = DataConfig(corpus=(str(tmp_path / "corpus"),))
    assert choose_bound(data, str(tmp_path), [], lambda stage, items: None) == bound


def test_a_split_needs_a_second_document_for_random_sentences_only():
    assert needed_documents(DataConfig()) == {"train": 2, "validation": 2}
    order = DataConfig(sentence_objective="sentence_order")
    assert needed_documents(order) == {"train": 1, "validation": 1}
    assert needed_documents(DataConfig(validation_fraction=0))["validation"] == 0


def test_a_corpus_without_documents_says_which_length_is_missing(tmp_path):
    with pytest.raises(UserError, match="found no document of 500 characters or more"):
        choose(tmp_path, TEXTS, min_document_characters=500)
