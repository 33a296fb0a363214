import os
from collections import Counter
from pathlib import Path

import pytest

from bertjax.config import DataConfig
from bertjax.data.corpus.sources import Source, find_sources, fingerprint
from bertjax.data.corpus.work_units import make_work_units, read_documents
from bertjax.errors import UserError


def documents(*corpus, **options):
    config = DataConfig(corpus=tuple(map(str, corpus)), **options)
    read = []
    for work_unit in make_work_units(find_sources(config)):
        read += read_documents(work_unit, config, Counter())
    return read


def test_folders_globs_and_repeats_name_each_file_once(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        (tmp_path / name).write_text(f"In {name}.\n")
    (tmp_path / ".hidden").write_text("no\n")
    read = documents(tmp_path, tmp_path / "*.txt", tmp_path / "a.txt")
    assert read == [["In a.txt."], ["In b.txt."], ["In sub/c.txt."]]


def test_links_back_to_a_folder_above_add_no_file(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x.txt").write_text("One.\n")
    # Several links in each folder would be followed along every path of them.
    for number in range(4):
        (tmp_path / "a" / "b" / f"up{number}").symlink_to("..")
        (tmp_path / "a" / f"self{number}").symlink_to(".")
    assert [source.name for source in find_sources(DataConfig(corpus=(str(tmp_path),)))] == [
        str(tmp_path / "a" / "x.txt")
    ]


def test_a_glob_of_folders_gives_the_files_in_them(tmp_path):
    for name in ("wiki/AA/00", "wiki/AB/00", "other/00"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"In {name}.\n")
    assert documents(tmp_path / "w*") == [["In wiki/AA/00."], ["In wiki/AB/00."]]
    assert documents(tmp_path / "**" / "AB") == [["In wiki/AB/00."]]


@pytest.mark.parametrize("name,format", [
    ("a.txt", "bert"), ("a", "bert"), ("a.txt.gz", "bert"), ("a.jsonl", "jsonl"), ("a.json.xz", "jsonl"),
    ("a.ndjson.bz2", "jsonl"), ("a.parquet", "parquet"),
])  # fmt: skip
def test_auto_takes_the_format_from_the_ending_before_that_of_the_compression(
    tmp_path, name, format
):
    (tmp_path / name).write_bytes(b"1234")
    path = str(tmp_path / name)
    assert find_sources(DataConfig(corpus=(path,))) == [Source(path, format, 4)]
    assert find_sources(DataConfig(corpus=(path,), format="line")) == [Source(path, "line", 4)]


def test_sources_come_in_the_order_of_their_names_not_as_given(tmp_path):
    for name in "cab":
        (tmp_path / name).write_text("Text.\n")
    names = [str(tmp_path / name) for name in "abc"]
    for given in (names, names[::-1]):
        sources = find_sources(DataConfig(corpus=("python-docs", *given)))
        assert [source.name for source in sources] == sorted(["python-docs", *names])


def test_a_fingerprint_follows_the_modification_time_of_a_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Text.\n")
    source = Source(str(path), "bert")
    first = fingerprint(source)
    assert fingerprint(source) == first
    os.utime(path, (1, 1))
    assert fingerprint(source) != first


def test_files_whose_names_are_not_utf8_are_read_and_told_apart(tmp_path):
    names = [b"caf\xe8.txt", b"caf\xe9.txt"]  # Latin-1, as in old archives
    for name in names:
        try:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text(f"In {name[3]:x}.\n")
        except OSError:
            pytest.skip("this file system has names in UTF-8 only")
    config = DataConfig(corpus=(str(tmp_path),))
    sources = find_sources(config)
    assert len({fingerprint(source) for source in sources}) == 2
    assert len({make_work_units([source])[0].name for source in sources}) == 2
    assert documents(tmp_path) == [["In e8."], ["In e9."]]


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.corpus /no/such/file: found no such file"):
        documents("/no/such/file")
    with pytest.raises(UserError, match=r"data\.corpus .*/\*\.txt: found no such file"):
        documents(tmp_path / "*.txt")
    with pytest.raises(
        UserError, match=rf"data\.corpus {tmp_path}: found a folder without files, expected a file"
    ):
        documents(tmp_path)


def test_a_name_that_the_system_refuses_is_an_error_of_one_line():
    with pytest.raises(UserError, match=r"data\.corpus /x{5000}: ") as caught:
        documents("/" + "x" * 5000)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_gone_when_it_is_to_be_read_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("Text.\n")
    config = DataConfig(corpus=(str(tmp_path),))
    (work_unit,) = make_work_units(find_sources(config))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"a\.txt: cannot be read \(No such file or directory\)"):
        list(read_documents(work_unit, config, Counter()))


@pytest.mark.quick
def test_the_default_corpus_is_english_documentation():
    # 724 documents and 2.2 MB on Python 3.11, 675 on 3.12, 609 on 3.13.
    read = documents("python-docs")
    sentences = [sentence for document in read for sentence in document]
    assert len(read) > 500
    assert sum(len(sentence.split()) for sentence in sentences) > 250_000
    assert any("Return" in sentence for sentence in sentences)
    assert read == documents("python-docs")


def test_real_text_is_read_in_english_and_chinese(shared_data):
    peps = documents(shared_data / "text" / "en" / "peps.jsonl.gz")
    chapters = documents(shared_data / "text" / "en" / "d2l_en.txt")
    wikitext = documents(shared_data / "text" / "en" / "wikitext2.valid.txt", format="line")
    chinese = documents(shared_data / "text" / "zh" / "d2l_zh.txt.xz")
    assert len(peps) == 736
    assert len(chapters) > 180
    assert len(wikitext) == 2461
    assert len(chinese) > 130
    assert sum(sentence.count("。") for document in chinese for sentence in document) > 1000
