import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import tracemalloc
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data.corpus.cleaning import WHITE_SPACE
from bertjax.data.corpus.sources import Source, find_sources
from bertjax.data.corpus.work_units import (
    SourcePart,
    WorkUnit,
    make_work_units,
    read_documents,
)
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from tests.data.corpus.test_sources import documents

COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
BERT_TEXT = "One sentence.\nAnother, of the same.\n\n\nA second document.\n"


def write(path, content):
    path.write_bytes(content)
    return path


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def error_of(*corpus, **options):
    with pytest.raises(UserError) as caught:
        documents(*corpus, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", COMPRESS)
def test_bert_format_has_one_sentence_a_line_and_blank_lines_between_documents(tmp_path, ending):
    path = write(tmp_path / f"a.txt{ending}", COMPRESS[ending](BERT_TEXT.encode()))
    assert documents(path) == [["One sentence.", "Another, of the same."], ["A second document."]]
    path.write_bytes(COMPRESS[ending](BERT_TEXT.replace("\n", "\r\n").encode("utf-8-sig")))
    assert documents(path) == [["One sentence.", "Another, of the same."], ["A second document."]]


@pytest.mark.parametrize("ending", COMPRESS)
def test_json_lines_give_the_text_field_as_sentences(tmp_path, ending):
    lines = "".join(
        json.dumps({"id": i, "body": f"Text {i}. 第二句。", "text": "no"}) + "\n\n"
        for i in range(2)
    )
    path = write(tmp_path / f"a.jsonl{ending}", COMPRESS[ending](lines.encode()))
    assert documents(path, text_field="body") == [["Text 0.", "第二句。"], ["Text 1.", "第二句。"]]


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_file_or_a_line_can_be_a_document(tmp_path, ending):
    path = write(
        tmp_path / f"b.txt{ending}", COMPRESS[ending](b"First line. Goes\non here.\n\nEnd.")
    )
    assert documents(path, format="file") == [["First line.", "Goes on here.", "End."]]
    assert documents(path, format="line") == [["First line.", "Goes"], ["on here."], ["End."]]


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=5),
    ending=st.sampled_from([*COMPRESS]),
)
def test_json_lines_and_parquet_give_the_same_documents(tmp_path_factory, texts, ending):
    folder = tmp_path_factory.mktemp("same")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ["Some text.", *texts])
    path = write(folder / f"a.jsonl{ending}", COMPRESS[ending](lines.encode()))
    assert documents(path) == documents(parquet(folder / "a.parquet", text=["Some text.", *texts]))


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()),
        pa.string_view(), pa.binary_view(),
    ],
)  # fmt: skip
def test_parquet_gives_the_column_of_the_text_field_in_any_storage_type(tmp_path, kind):
    path = parquet(
        tmp_path / "a.parquet", text=pa.array(["One. Two.", "三。", ""], kind), n=[1, 2, 3]
    )
    assert documents(path) == [["One.", "Two."], ["三。"]]
    assert error_of(path, text_field="body").endswith(
        "a.parquet: found the columns text, n, expected data.text_field 'body'"
    )


def test_entries_that_are_null_are_left_out_and_counted(tmp_path):
    texts = ["One.", None, "Two.", None]
    table = parquet(tmp_path / "a.parquet", text=texts)
    lines = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts[:-1]) + "null\n"
    for path in (table, write(tmp_path / "a.jsonl", lines.encode())):
        config = DataConfig(corpus=(str(path),))
        (work_unit,) = make_work_units(find_sources(config))
        counts = Counter()
        assert list(read_documents(work_unit, config, counts)) == [["One."], ["Two."]]
        assert +counts == {"documents_read": 2, "null_documents": 2}
    for nulls in (pa.nulls(2, pa.string()), pa.nulls(2)):
        path = parquet(tmp_path / "a.parquet", text=nulls)
        assert error_of(path) == f"{path}: found no text, expected one document or more"
    # A field that is missing may be a slip in its name.
    path = write(tmp_path / "a.jsonl", b'{"text": null}\n{"txt": "One."}\n')
    assert error_of(path).startswith(f"{path}, line 2: found the fields txt, expected")


def test_bad_parquet_values_are_named_by_row(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=[1, 2])
    assert error_of(path) == f"{path}, column text: found values of type int64, expected text"
    parquet(
        path,
        text=pa.Array.from_buffers(
            pa.string(), 2, pa.array([b"ok", b"\xff"], pa.binary()).buffers()
        ),
    )
    assert error_of(path).startswith(f"{path}, row 2: found the byte 0xff, which is not UTF-8")
    assert documents(path, encoding_errors="replace") == [["ok"], ["\ufffd"]]


def test_damaged_parquet_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=[os.urandom(50).hex() for _ in range(5000)])
    whole = path.read_bytes()
    for content in (
        b"",
        b"PAR1 no",
        whole[: len(whole) // 2],
        whole[:50_000] + bytes(5_000) + whole[55_000:],
    ):
        assert error_of(write(path, content)).startswith(f"{path}: cannot be read as Parquet (")


# Whatever separates words for a reader, and characters that a tokenizer drops.
SEPARATORS = [c for c in [*WHITE_SPACE, *"\u200b\u2800\u3164\uffa0"] if c not in "\n\r"]
BETWEEN_WORDS = st.tuples(
    st.sampled_from(["", "\0", "\ufeff", " "]), st.sampled_from(SEPARATORS), st.sampled_from(["", "\x1b", "\t"])
).map("".join)  # fmt: skip
WORDS = [
    "one",
    "two",
    "three",
    "\u092e\u0947\u0902",
    "\u00e9t\u00e9",
    "\u0645\u06cc\u200c\u062e",
    "\u6f22",
]
# BERT's tokenizer drops U+200C, which cleaning keeps for the others.
TOKENIZER = WordPiece("vocab", "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]).replace("\u200c", "").encode(), False)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(WORDS), BETWEEN_WORDS), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_the_same_text_gives_the_same_tokens_in_every_format(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("formats")
    texts = ["".join(word + between for word, between in text) for text in drawn]
    expected = [[word for word, _ in text] for text in drawn]
    corpora = {
        "bert": write(folder / "a.txt", "\n\u200b\n".join(texts).encode()),
        "line": write(folder / "a.lines", "\n".join(texts).encode()),
        "jsonl": write(folder / "a.jsonl", "\n".join(json.dumps({"text": t}) for t in texts).encode()),
        "parquet": parquet(folder / "a.parquet", text=texts),
    }  # fmt: skip
    for format, path in corpora.items():
        assert words_of(documents(path, format=format)) == expected, format
    for text, words in zip(texts, expected, strict=True):
        path = write(folder / "one.txt", text.encode())
        assert words_of(documents(path, format="file")) == [words]


def words_of(read):
    """The words of each document, which must have been cut at single spaces."""
    found = []
    for document in read:
        (sentence,) = document
        ids, _ = TOKENIZER.encode_batch([sentence])
        assert TOKENIZER.unk_id not in ids
        found.append(sentence.split(" "))
    return found


@pytest.mark.parametrize(
    "separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u00a0", "\u200b"]
)
def test_words_of_the_bert_format_are_the_words_of_json_lines(tmp_path, separator):
    sentences = [separator.join(["First", "of", f"two {i}."]) for i in range(3)]
    bert = write(tmp_path / "a.txt", "\n".join(sentences).encode())
    lines = write(tmp_path / "a.jsonl", json.dumps({"text": " ".join(sentences)}).encode())
    assert documents(bert) == documents(lines) == [[f"First of two {i}." for i in range(3)]]


@pytest.mark.parametrize("blank", ["\u200b", "\ufeff", "\x0b", "\x0c", "\x85", "\u2029", "\u3000\u200b", "\u2060", "\0", "\u200e", "\x1a"])  # fmt: skip
def test_a_line_in_which_a_reader_sees_nothing_ends_a_document(tmp_path, blank):
    text = "".join(f"In document {i}.\n{blank}\n" for i in range(300))
    path = write(tmp_path / "a.txt", text.encode())
    assert documents(path) == [[f"In document {i}."] for i in range(300)]
    # The file may be divided there too, so that no document is cut.
    config = DataConfig(corpus=(str(path),))
    work_units = make_work_units(find_sources(config), 500)
    assert len(work_units) > 10
    for work_unit in work_units:
        assert all(len(d) == 1 for d in read_documents(work_unit, config, Counter()))
    write(path, f'{{"text": "One."}}\n{blank}\n{{"text": "Two."}}\n{blank}'.encode())
    assert documents(path, format="jsonl") == [["One."], ["Two."]]
    assert error_of(write(path, f"{blank}\n{blank}".encode())).endswith(
        "found no text, expected one document or more"
    )


@pytest.mark.parametrize("name", ["vertical_tab", "next_line", "english"])
def test_the_two_formats_of_a_given_text_give_the_same_sentences(shared_data, name):
    folder = shared_data.parent / "cases" / "text"
    read = documents(folder / f"{name}.txt")
    assert read == documents(folder / f"{name}.jsonl")
    assert len(read) == 60


def test_lines_of_zero_width_spaces_part_sixty_documents(shared_data):
    assert len(documents(shared_data.parent / "cases" / "text" / "zero_width_line.txt")) == 60


TFDS_SCRIPT = """
import os
from collections import Counter
from pathlib import Path

import tensorflow_datasets as tfds

from bertjax.config import DataConfig
from bertjax.data.corpus.sources import find_sources
from bertjax.data.corpus.work_units import make_work_units, read_documents
from bertjax.errors import UserError


class TinyText(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(3), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            yield f"{count}-{i}", {"text": f"Document {i}\\x0bof\\u200b{count}. It ends. 完。"}


def show(corpus, field="text"):
    config = DataConfig(corpus=(corpus,), text_field=field)
    try:
        work_units = make_work_units(find_sources(config), 60)
        documents = []
        for work_unit in work_units:
            documents += read_documents(work_unit, config, Counter())
        print(len(work_units), sorted(documents))
    except UserError as error:
        print(error)


folder = Path(os.environ["TFDS_DATA_DIR"])
TinyText(data_dir=folder).download_and_prepare()
show("tfds:tiny_text")
show("tfds:tiny_text:1.0.0", "body")
show("tfds:no_such_set")
show("tfds:tiny_text/no_config")
show("tfds:")
(records,) = (path for path in folder.rglob("*tfrecord*") if "train" in path.name)
records.write_bytes(records.read_bytes()[:-7])
show("tfds:tiny_text")
"""


@pytest.mark.slow
def test_a_tfds_data_set_is_read_by_its_name_from_the_folder_that_the_environment_names(tmp_path):
    # Another process, since TFDS reads TFDS_DATA_DIR when it is imported.
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path), "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", TFDS_SCRIPT]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    documents, field, name, config, empty, damaged = done.stdout.splitlines()[-6:]
    expected = [
        [f"Document {i} of {n}.", "It ends.", "完。"]
        for i, n in [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    ]
    assert documents == f"4 {expected}"
    assert (
        field
        == "tfds:tiny_text:1.0.0, example 0: found the fields text, expected data.text_field 'body'"
    )
    assert (
        name
        == "tfds:no_such_set: cannot be loaded (DatasetNotFoundError: Dataset no_such_set not found.)"
    )
    assert config.startswith("tfds:tiny_text/no_config: cannot be loaded (")
    assert empty.startswith("tfds:: cannot be loaded (")
    assert damaged.startswith("tfds:tiny_text, example ")
    assert "is truncated or damaged (" in damaged


@pytest.mark.parametrize("name,content,message", [
    ("a.txt", b"", "a.txt: found no text, expected one document or more"),
    ("a.txt", b"\n \n", "a.txt: found no text, expected one document or more"),
    ("a.txt.gz", b"", "a.txt.gz: found no text, expected one document or more"),
    ("a.txt", b"good\nbad \xff here\n", "a.txt, line 2: found the byte 0xff, which is not UTF-8, expected UTF-8 (or data.encoding_errors replace)"),
    ("a.txt", b"\xef\xbb\xbfab\xfe\n", "a.txt, line 1: found the byte 0xfe, which is not UTF-8"),
    ("a.txt", "text".encode("utf-16"), "a.txt: found text in UTF-16, expected text in UTF-8"),
    ("a.jsonl", b'{"text": "ok"}\n{"text": \n', "a.jsonl, line 2: found broken JSON (Expecting value at character 10), expected one object a line"),
    ("a.jsonl", b"[" * 100_000 + b"\n", "a.jsonl, line 1: found JSON that is nested too deeply to be read, expected one object a line"),
    ("a.jsonl", b'{"text": "ok", "n": %s, "m": %s\n' % (b"1" * 6000, b"[" * 100_000), "a.jsonl, line 1: found JSON that is nested too deeply"),
    ("a.jsonl", b'{"n": %s, "text"}\n' % (b"1" * 6000), "a.jsonl, line 1: found broken JSON (Expecting ':' delimiter at character"),
    ("a.jsonl", b'{"text": %s}\n' % (b"1" * 6000), "a.jsonl, line 1, text: found a value of type int, expected text"),
    ("a.jsonl", b'{"text": "ok"}\n{"title": "x", "a\\nb": 1}\n', "a.jsonl, line 2: found the fields title, a b, expected data.text_field 'text'"),
    ("a.jsonl", b"{}\n", "a.jsonl, line 1: found the fields none, expected data.text_field 'text'"),
    ("a.jsonl", b'{"text": 3}\n', "a.jsonl, line 1, text: found a value of type int, expected text"),
    ("a.jsonl", b"[1]\n", "a.jsonl, line 1: found JSON of type list, expected an object"),
    ("a.jsonl", b'\n{"text": "half \\ud83d"}\n', "a.jsonl, line 2: found half a surrogate pair, \\ud83d, expected whole text"),
])  # fmt: skip
def test_bad_input_is_one_line_that_names_file_and_line(tmp_path, name, content, message):
    assert error_of(write(tmp_path / name, content)).startswith(f"{tmp_path}/{message}")


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_damaged_compressed_files_are_named(tmp_path, ending):
    whole = COMPRESS[ending](os.urandom(20_000).hex().encode())
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    for content in (whole[:-9], whole[:100], flipped, b"not compressed at all"):
        path = write(tmp_path / f"a.jsonl{ending}", content)
        for format in ("line", "file"):
            expected = f"{path}: is truncated or no whole {ending} file ("
            assert error_of(path, format=format, encoding_errors="replace").startswith(expected)


def test_a_field_may_be_an_integer_of_any_length(tmp_path):
    line = b'{"n": [%s, -%s], "text": "One. Two."}\n' % (b"1" * 6000, b"2" * 50_000)
    assert documents(write(tmp_path / "a.jsonl", line * 2)) == [["One.", "Two."]] * 2


def test_bytes_that_are_not_utf8_can_be_replaced(tmp_path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfgood\nbad \xff here\n")
    assert documents(path, encoding_errors="replace") == [["good", "bad \ufffd here"]]
    path = write(tmp_path / "a.jsonl", b'{"text": "half \\ud83d, whole \\ud83d\\ude00"}\n')
    assert documents(path, encoding_errors="replace") == [["half \ufffd, whole 😀"]]


def test_the_line_of_a_bad_byte_is_found_in_a_file_read_whole(tmp_path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\ntwo\nthree \xc3\n")
    assert error_of(path, format="file").startswith(f"{path}, line 3: found the byte 0xc3")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.xz", "a.parquet"])
def test_memory_is_bounded_by_a_document_not_by_the_file(tmp_path, name):
    texts = [os.urandom(4_000).hex() for _ in range(2_000)]  # 16 MB
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), path, write_batch_size=16)  # pages of 128 kB
    elif name == "a.jsonl.gz":
        with gzip.open(path, "wt", compresslevel=1) as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    else:
        path.write_bytes(lzma.compress("\n\n".join(texts).encode(), preset=0))
    del texts
    source = Source(str(path), {"a.txt.xz": "bert", "a.jsonl.gz": "jsonl"}.get(name, "parquet"))
    work_unit = WorkUnit((SourcePart(source),), 0)
    next(read_documents(work_unit, DataConfig(), Counter()))  # so that imports are not counted
    tracemalloc.start()
    arrow_before = pa.total_allocated_bytes()
    try:
        count = arrow_peak = 0
        for _ in read_documents(work_unit, DataConfig(), Counter()):
            count += 1
            arrow_peak = max(arrow_peak, pa.total_allocated_bytes() - arrow_before)
        python_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 2_000
    assert python_peak + arrow_peak < 8e6
