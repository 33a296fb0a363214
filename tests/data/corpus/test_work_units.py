import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.corpus.cleaning import LONG_DOCUMENT_CUTS
from bertjax.data.corpus.formats import decoding, long_texts
from bertjax.data.corpus.sources import Source, find_sources
from bertjax.data.corpus.work_units import make_work_units, read_documents
from bertjax.errors import UserError

words = st.lists(st.sampled_from(["a", "bc", "é", "句。", "x" * 30]), min_size=1, max_size=6).map(
    " ".join
)
corpora = st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=12)


def read(folder, unit_bytes, **options):
    """The work units of the corpus in `folder`, and the documents that they hold."""
    config = DataConfig(corpus=(str(folder),), **options)
    work_units = make_work_units(find_sources(config), unit_bytes)
    documents = []
    for work_unit in work_units:
        documents += read_documents(work_unit, config, Counter())
    return work_units, documents


def write(path, documents, format):
    if format == "bert":
        path.write_text("\n\n".join("\n".join(document) for document in documents) + "\n")
    elif format == "line":
        path.write_text("".join(" ".join(document) + "\n" for document in documents))
    else:
        path.write_text(
            "".join(json.dumps({"text": " ".join(document)}) + "\n" for document in documents)
        )


@settings(max_examples=60)
@given(
    documents=corpora, size=st.integers(1, 200), format=st.sampled_from(["bert", "line", "jsonl"])
)
def test_work_units_of_any_size_hold_each_document_once_in_order(
    tmp_path_factory, documents, size, format
):
    folder = tmp_path_factory.mktemp("units")
    write(folder / "a.txt", documents, format)
    (whole,), expected = read(folder, 10**9, format=format)
    work_units, read_back = read(folder, size, format=format)
    assert read_back == expected
    assert len(read_back) == len(documents)
    assert len({work_unit.name for work_unit in [whole, *work_units]}) == len(work_units) + (
        whole not in work_units
    )


def test_a_large_file_is_divided_into_units_of_about_the_given_size(tmp_path):
    write(tmp_path / "a.txt", [[f"Sentence {i} of a document."] * 3 for i in range(2000)], "bert")
    total = (tmp_path / "a.txt").stat().st_size
    work_units, _ = read(tmp_path, total // 20)
    assert 18 <= len(work_units) <= 21
    assert sum(work_unit.size for work_unit in work_units) == total
    assert max(work_unit.size for work_unit in work_units) < 1.2 * total / 20


def test_small_files_share_a_work_unit(tmp_path):
    for number in range(100):
        write(tmp_path / f"{number:03}.txt", [[f"In file {number}."]], "bert")
    work_units, read_back = read(tmp_path, 200)
    assert [document[0] for document in read_back] == [
        f"In file {number}." for number in range(100)
    ]
    assert 5 <= len(work_units) <= 12


def test_parquet_is_divided_between_row_groups(tmp_path):
    texts = [f"Row {i}." for i in range(100)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=10)
    work_units, read_back = read(tmp_path, 400)
    assert len(work_units) > 2
    assert [document[0] for document in read_back] == texts


def test_a_compressed_file_is_one_work_unit(tmp_path):
    import gzip

    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"One line.\n\nAnother.\n" * 1000))
    work_units, read_back = read(tmp_path, 100)
    assert len(work_units) == 1
    assert len(read_back) == 1001


def test_a_bad_line_of_a_later_unit_is_named_by_its_number_in_the_file(tmp_path):
    lines = [json.dumps({"text": f"Line {i}."}).encode() for i in range(500)]
    lines[400] = b'{"text": "\xff"}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"a\.jsonl, line 401: found the byte 0xff"):
        read(tmp_path, 1000)
    lines[400] = b"{"
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"a\.jsonl, line 401: found broken JSON"):
        read(tmp_path, 1000)


@pytest.mark.parametrize("format", ["line", "file", "bert", "jsonl"])
def test_a_very_long_document_is_read_as_several_that_hold_all_its_words(
    tmp_path, format, monkeypatch
):
    monkeypatch.setattr(long_texts, "MAX_DOCUMENT_CHARACTERS", 4096)
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 4096)
    text = " ".join(f"word{i}" for i in range(5000))
    path = tmp_path / "a.txt"
    path.write_text(json.dumps({"text": text}) + "\n" if format == "jsonl" else text + "\n")
    _, read_back = read(tmp_path, 0, format=format)
    assert 4 < len(read_back) < 20
    assert " ".join(sentence for document in read_back for sentence in document) == text


def test_a_line_without_spaces_is_not_divided_within_a_character(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 100)
    text = "漢字ß" * 200
    (tmp_path / "a.txt").write_text(text)
    _, read_back = read(tmp_path, 0, format="line")
    assert "".join(sentence for document in read_back for sentence in document) == text


def test_cleaning_is_counted_over_the_work_units(tmp_path):
    (tmp_path / "a.txt").write_text(
        "Cafe\u0301 ol\x00e\u0301.\n\nShort.\n\nLong enough to be kept.\n"
    )
    config = DataConfig(corpus=(str(tmp_path),), min_document_characters=8)
    counts = Counter()
    (work_unit,) = make_work_units(find_sources(config))
    assert list(read_documents(work_unit, config, counts)) == [
        ["Café olé."],
        ["Long enough to be kept."],
    ]
    assert counts == {
        "documents_read": 3, "normalised_documents": 1, "control_characters": 1, "short_documents": 1,
    }  # fmt: skip


def test_the_parts_of_a_source_do_not_depend_on_other_sources():
    sources = [Source(name, "tfds") for name in ("tfds:a", "tfds:b")]
    assert make_work_units(sources)[0].parts[0] == make_work_units(sources[:1])[0].parts[0]


def cuts(folder, unit_bytes, **options):
    """The work units, the documents that are read, and the places where one was cut in two."""
    config = DataConfig(corpus=(str(folder),), **options)
    work_units = make_work_units(find_sources(config), unit_bytes)
    counts = Counter()
    documents = [d for work_unit in work_units for d in read_documents(work_unit, config, counts)]
    return len(work_units), documents, counts[LONG_DOCUMENT_CUTS]


@settings(max_examples=60)
@given(
    documents=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    line=st.sampled_from(["abcdefgh", "\u0915\u0916", "\U00020000 b"]),
    size=st.integers(1, 3000),
    format=st.sampled_from(["bert", "file", "jsonl"]),
)
def test_each_cut_of_a_long_document_is_counted_wherever_work_units_end(
    tmp_path_factory, documents, line, size, format
):
    folder = tmp_path_factory.mktemp("cuts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_texts, "MAX_DOCUMENT_CHARACTERS", 100)
        patch.setattr(decoding, "BLOCK_BYTES", 64)
        if format == "file":
            for number, lines in enumerate(documents):
                (folder / f"{number}.txt").write_text("\n".join([line] * lines))
        else:
            write(folder / "a.txt", [[line] * lines for lines in documents], format)
        _, read_back, cut = cuts(folder, size, format=format)
    assert len(read_back) == len(documents) + cut
    longest = max(documents) * (len(line) + 1)
    assert cut > 0 or longest <= 2 * 100
    assert cut == 0 or longest > 100


def test_lines_that_are_cut_are_counted_where_a_line_is_a_document(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 64)
    (tmp_path / "a.txt").write_text("word " * 60 + "\nshort\n")
    _, read_back, cut = cuts(tmp_path, 10**9, format="line")
    assert cut > 0
    assert len(read_back) == 2 + cut


def test_a_document_below_the_limit_is_not_cut_in_any_script(tmp_path):
    # 2.1 million bytes, 700,000 characters: a work unit would end in it.
    (tmp_path / "a.txt").write_text(
        "Begin.\n\n" + ("\u4e2d" * 69 + "\u3002\n") * 10_000 + "\nEnd.\n"
    )
    for size in (500_000, 1_500_000):
        _, read_back, cut = cuts(tmp_path, size)
        assert [len(document) for document in read_back] == [1, 10_000, 1]
        assert cut == 0
        _, read_back, cut = cuts(tmp_path, size, format="file")
        assert (len(read_back), cut) == (1, 0)
