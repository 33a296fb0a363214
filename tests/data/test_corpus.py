import bz2
import gzip
import json
import lzma

import pytest

from bertjax.config import DataConfig
from bertjax.data.corpus import find_sources, read_documents
from bertjax.errors import UserError

COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
BERT_TEXT = "One sentence.\nAnother, of the same.\n\n\nA second document.\n"


def documents(*corpus, **options):
    config = DataConfig(corpus=tuple(map(str, corpus)), **options)
    return [document for source in find_sources(config) for document in read_documents(source, config)]


@pytest.mark.parametrize("ending", COMPRESS)
def test_bert_format_has_a_sentence_a_line_and_blank_lines_between_documents(tmp_path, ending):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(COMPRESS[ending](BERT_TEXT.encode()))
    assert documents(path) == [["One sentence.", "Another, of the same."], ["A second document."]]


@pytest.mark.parametrize("ending", COMPRESS)
def test_json_lines_give_the_text_field_as_sentences(tmp_path, ending):
    lines = "".join(json.dumps({"id": i, "body": f"Text {i}. 第二句。", "text": "no"}) + "\n" for i in range(2))
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(COMPRESS[ending](lines.encode()))
    assert documents(path, text_field="body") == [["Text 0.", "第二句。"], ["Text 1.", "第二句。"]]


def test_a_file_or_a_line_can_be_a_document(tmp_path):
    (tmp_path / "b.txt").write_text("First line. Goes\non here.\n\nEnd.")
    assert documents(tmp_path / "b.txt", format="file") == [["First line.", "Goes on here.", "End."]]
    assert documents(tmp_path / "b.txt", format="line") == [["First line.", "Goes"], ["on here."], ["End."]]


def test_parquet_gives_the_column_of_the_text_field(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["One. Two.", "Three."], "n": [1, 2]}), tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet") == [["One.", "Two."], ["Three."]]
    with pytest.raises(UserError, match=r"a\.parquet: found the columns text, n, expected data.text_field 'body'"):
        documents(tmp_path / "a.parquet", text_field="body")


def test_a_tfds_data_set_is_read_by_its_name(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class TinyText(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"text": tfds.features.Text()})
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(3), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            for i in range(count):
                yield f"{count}-{i}", {"text": f"Document {i} of {count}. It ends."}

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    TinyText(data_dir=str(tmp_path)).download_and_prepare()
    found = documents("tfds:tiny_text")
    assert len(found) == 5
    assert ["Document 1 of 3.", "It ends."] in found
    with pytest.raises(UserError, match="tfds:tiny_text, example 0: found the fields text, expected data.text_field"):
        documents("tfds:tiny_text", text_field="body")
    with pytest.raises(UserError, match="tfds:no_such_set: cannot be loaded"):
        documents("tfds:no_such_set")


def test_folders_globs_and_repeats_name_each_file_once(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        (tmp_path / name).write_text(f"In {name}.\n")
    (tmp_path / ".hidden").write_text("no\n")
    found = documents(tmp_path, tmp_path / "*.txt", tmp_path / "a.txt")
    assert found == [["In a.txt."], ["In b.txt."], ["In sub/c.txt."]]


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name,content,message", [
    ("a.txt", b"", r"a\.txt: found no text, expected one document or more"),
    ("a.txt", b"\n \n", r"a\.txt: found no text"),
    ("a.txt", b"good\nbad \xff here\n", r"a\.txt, line 2: found the byte 0xff, which is not UTF-8"),
    ("a.jsonl", b'{"text": "ok"}\n{"text": \n', r"a\.jsonl, line 2: found broken JSON"),
    ("a.jsonl", b'{"text": "ok"}\n{"title": "x"}\n', r"a\.jsonl, line 2: found the fields title, expected data.text_field"),
    ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl, line 1, text: found a value of type int, expected text"),
    ("a.jsonl", b"[1]\n", r"a\.jsonl, line 1: found JSON of type list, expected an object"),
    ("a.parquet", b"PAR1 no", r"a\.parquet: cannot be read as Parquet"),
    ("a.txt.gz", gzip.compress(b"words " * 999)[:-9], r"a\.txt\.gz: is truncated or no whole \.gz file"),
    ("a.txt.bz2", bz2.compress(b"words " * 999)[:-9], r"a\.txt\.bz2: is truncated or no whole \.bz2 file"),
    ("a.txt.xz", lzma.compress(b"words " * 999)[:-9], r"a\.txt\.xz: is truncated or no whole \.xz file"),
    ("a.txt.gz", b"no gzip at all", r"a\.txt\.gz: is truncated or no whole \.gz file"),
    ("a.txt.bz2", b"no bzip at all", r"a\.txt\.bz2: (is truncated|cannot be read)"),
    ("a.txt.xz", b"no xz at all", r"a\.txt\.xz: is truncated or no whole \.xz file"),
])  # fmt: skip
def test_bad_input_is_one_line_that_names_file_and_line(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message) as caught:
        documents(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_of_a_compressed_file_is_named(tmp_path):
    content = bytearray(gzip.compress(bytes(range(256)) * 400, compresslevel=0))
    content[5000] ^= 0xFF
    with pytest.raises(UserError, match=r"a\.txt\.gz"):
        documents(write(tmp_path / "a.txt.gz", bytes(content)), encoding_errors="replace")


def test_bytes_that_are_not_utf8_can_be_replaced(tmp_path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfgood\nbad \xff here\n")
    assert documents(path, encoding_errors="replace") == [["good", "bad � here"]]


def test_the_line_of_a_bad_byte_is_found_in_a_file_read_whole(tmp_path):
    path = write(tmp_path / "a.txt", b"one\ntwo\nthree \xc3\n")
    with pytest.raises(UserError, match=r"a\.txt, line 3: found the byte 0xc3"):
        documents(path, format="file")


def test_a_missing_corpus_is_named():
    with pytest.raises(UserError, match=r"data\.corpus /no/such/file: found no such file"):
        documents("/no/such/file")


def test_the_default_corpus_is_english_documentation():
    found = documents("python-docs")
    words = sum(len(sentence.split()) for document in found for sentence in document)
    assert len(found) > 500
    assert words > 250_000
    assert any("Return" in sentence for document in found for sentence in document)
    assert found == documents("python-docs")


def test_real_text_is_read_in_english_and_chinese(shared_data):
    english = documents(shared_data / "text" / "en" / "peps.jsonl.gz")
    chinese = documents(shared_data / "text" / "zh" / "d2l_zh.txt.xz")
    assert len(english) == 736
    assert len(chinese) > 130
    assert sum(sentence.count("。") for document in chinese for sentence in document) > 1000
