"""CoNLL files read, and written again with other tags."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.tasks.tagging.columns import CONLL_U, Columns
from bertjax.tasks.tagging.conll import read_conll, write_conll

pytestmark = pytest.mark.quick

CONLL_2003 = """\
-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
call NN I-NP O

-DOCSTART- -X- -X- O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""

UNIVERSAL = """\
# sent_id = 1
# text = Vámonos al mar.
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\t(nada)\t_\t_\t_\t_\t_\t_\t_\t_
3\tNueva York\t_\tPROPN\t_\t_\t1\tobl\t_\t_

# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_

"""


@pytest.fixture
def write(tmp_path):
    def write(content, name="a.conll"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def error_of(call):
    with pytest.raises(UserError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def shown(examples):
    return [(example.id, example.words, example.tags) for example in examples]


def test_sentences_end_at_blank_lines_and_at_documents(write):
    assert shown(read_conll(write(CONLL_2003))) == [
        ("a.conll:3", ("EU", "rejects", "call"), ("B-ORG", "O", "O")),
        ("a.conll:9", ("Peter", "Blackburn"), ("B-PER", "I-PER")),
    ]


def test_the_lines_of_the_words_are_kept(write):
    (example,) = read_conll(write("a\tx\tO\r\nb\ty\tB-A"))
    assert example.lines == ("a\tx\tO", "b\ty\tB-A")


def test_a_hash_is_a_word_and_a_line_of_white_space_ends_a_sentence(write):
    text = "\ufeffwe\tO\n#\tO\n#bertjax\tB-product\n\t\n \u00a0\nno\u00a0break\u2028\x85here\tO\n\ufeff\n"
    assert shown(read_conll(write(text))) == [
        ("a.conll:1", ("we", "#", "#bertjax"), ("O", "O", "B-product")),
        ("a.conll:6", ("no\u00a0break\u2028\x85here",), ("O",)),
    ]


def test_words_with_blanks_stand_between_tabs(write):
    (example,) = read_conll(write("New York\tB-LOC\n -\tO\n"))
    assert example.words == ("New York", " -")


def test_without_tags_one_column_is_enough_and_more_are_not_looked_at(write):
    expected = [("a.conll:1", ("one", "two"), None), ("a.conll:4", ("three",), None)]
    assert shown(read_conll(write("one\ntwo\n\nthree"), tags=False)) == expected
    assert (
        shown(read_conll(write("one  O\ntwo  \n\nthree B-X".replace("  \n", " -\n")), tags=False))
        == expected
    )


def test_conll_u_has_comments_ranges_and_empty_nodes_which_are_no_words(write):
    path = write(UNIVERSAL, "es.conllu")
    assert shown(read_conll(path)) == [
        ("es.conllu:4", ("Vamos", "nos", "Nueva York"), ("VERB", "PRON", "PROPN")),
        ("es.conllu:10", ("#",), ("SYM",)),
    ]


MULTICONER = """\
# id 5239d808\tdomain=en

robert _ _ B-OtherPER
gottschalk _ _ I-OtherPER

# id 7\tdomain=en
# _ _ O
# _ _ B-OtherPER
"""


def test_lines_before_a_sentence_that_are_no_words_are_comments(write, tmp_path):
    path = write(MULTICONER)
    examples = read_conll(path)
    assert shown(examples) == [
        ("a.conll:3", ("robert", "gottschalk"), ("B-OtherPER", "I-OtherPER")),
        ("a.conll:7", ("#", "#"), ("O", "B-OtherPER")),
    ]
    write_conll(tmp_path / "out", path, [example.tags for example in examples])
    assert (tmp_path / "out").read_text() == MULTICONER
    # Within a sentence such a line is a mistake.
    path = write("a O\n# id 7 x\n")
    message = error_of(lambda: read_conll(path))
    assert message == f"{path}, line 2: found 4 columns, expected 2 as in line 1"
    assert shown(read_conll(write("# O\n# B-A\n"))) == [("a.conll:1", ("#", "#"), ("O", "B-A"))]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [" ", "\t", "   "])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_as_they_are_found_have_the_same_sentences(write, end, separator, mark):
    """Chunk tags beside the entities, types with hyphens, one token a sentence, Chinese by
    character, no empty line at the end.
    """
    words = [
        ("-DOCSTART-", "-X-", "O", "O"),
        (),
        ("EU", "NNP", "I-NP", "B-ORG-SUB"),
        (),
        ("海", "n", "O", "B-LOC"),
        ("钓", "n", "O", "I-LOC"),
        (),
        (),
        ("Rome", "NNP", "I-NP", "B-LOC"),
    ]
    content = mark + end.join(separator.join(fields) for fields in words)
    assert shown(read_conll(write(content))) == [
        ("a.conll:3", ("EU",), ("B-ORG-SUB",)),
        ("a.conll:5", ("海", "钓"), ("B-LOC", "I-LOC")),
        ("a.conll:9", ("Rome",), ("B-LOC",)),
    ]
    assert [tags for _, _, tags in shown(read_conll(write(content), columns=Columns(tag=2)))] == [
        ("I-NP",),
        ("O", "O"),
        ("I-NP",),
    ]


def test_files_in_an_old_encoding_are_read_and_predictions_are_utf8(write, tmp_path):
    path = write("Düsseldorf I-LOC\n".encode("latin-1"), "deu.testa")
    (example,) = read_conll(path, encoding="latin-1")
    assert example.words == ("Düsseldorf",)
    write_conll(tmp_path / "out", path, [("O",)], encoding="latin-1")
    assert (tmp_path / "out").read_text("utf-8") == "Düsseldorf O\n"


def test_other_columns_and_comments_by_option(write):
    path = write("# id 1\nB-A _ one\nO _ #\n")
    columns = Columns(word=2, tag=0, comments=True)
    assert shown(read_conll(path, columns=columns)) == [("a.conll:2", ("one", "#"), ("B-A", "O"))]


def test_a_language_is_taken_off_where_all_words_have_it(write):
    (example,) = read_conll(write("en:Paris\tB-LOC\nen::\tO\nen:en:\tO\n"))
    assert example.words == ("Paris", ":", "en:")
    (example,) = read_conll(write("en:Paris\tB-LOC\n:\tO\n"))
    assert example.words == ("en:Paris", ":")
    for language in ("zh-min-nan", "simple"):
        assert read_conll(write(f"{language}:Paris O\n"))[0].words == ("Paris",)
    (example,) = read_conll(write("http://a.b/c O\nhttp://d O\n"))
    assert example.words == ("http://a.b/c", "http://d")


def test_compressed_files_are_read(write):
    assert read_conll(write(gzip.compress(CONLL_2003.encode()), "a.conll.gz"))[1].words == (
        "Peter",
        "Blackburn",
    )


def test_errors_name_the_file_and_the_line(write):
    def of(content, **options):
        path = write(content)
        return error_of(lambda: read_conll(path, **options)).removeprefix(str(path))

    assert of("a O\nb O\n\nc X O\n") == ", line 4: found 3 columns, expected 2 as in line 1"
    assert (
        of("-DOCSTART- O\n\na\nb O\n")
        == ", line 3: found 1 column, expected 2 or more, the word's and the tag's"
    )
    assert of("a\tO\nb\t\n") == ", line 2: found no tag of the word 'b', expected one"
    assert of("a\tO\n\tO\n") == ", line 2: found an empty word, expected a word"
    assert of("a O\nb\n", tags=False) == ", line 2: found 1 column, expected 2 as in line 1"
    assert (
        of(b"a O\nb\xff O\n") == ", line 2: found the byte 0xff, which is not UTF-8, expected UTF-8"
        " (or finetune.encoding, the name of the file's)"
    )
    assert of("\n \n-DOCSTART- O\n") == ": found no sentence, expected one or more"
    assert of("a O\n", columns=Columns(tag=3)).startswith(
        ", line 1: found 2 columns, expected 4 or more"
    )
    path = write("").parent / "none.conll"
    assert (
        error_of(lambda: read_conll(path)) == f"{path}: cannot be read (No such file or directory)"
    )


def test_predictions_stand_in_the_files_own_format(write, tmp_path):
    source = write(CONLL_2003)
    write_conll(tmp_path / "out", source, [("O", "B-ORG", "I-ORG"), ("B-LOC", "O")])
    assert (tmp_path / "out").read_text() == (
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP O\nrejects VBZ B-VP B-ORG\ncall NN I-NP I-ORG\n\n"
        "-DOCSTART- -X- -X- O\n\nPeter NNP B-NP B-LOC\nBlackburn NNP I-NP O\n"
    )
    write_conll(
        tmp_path / "both", source, [("O", "B-ORG", "I-ORG"), ("B-LOC", "O")], keep_tags=True
    )
    assert (
        (tmp_path / "both")
        .read_text()
        .endswith("Peter NNP B-NP B-PER B-LOC\nBlackburn NNP I-NP I-PER O\n")
    )
    write_conll(tmp_path / "new", write("en:a\r\nen:b \r\n\r\nen:c"), [("O", "B-A"), ("O",)])
    assert (tmp_path / "new").read_bytes() == b"en:a\tO\r\nen:b\tB-A \r\n\r\nen:c\tO"
    write_conll(tmp_path / "es", write(UNIVERSAL, "es.conllu"), [("A", "B", "C"), ("D",)])
    changed = (tmp_path / "es").read_text("utf-8")
    assert [example.tags for example in read_conll(tmp_path / "es", columns=CONLL_U)] == [
        ("A", "B", "C"),
        ("D",),
    ]
    for old, new in (("VERB", "A"), ("PRON", "B"), ("PROPN", "C"), ("SYM", "D")):
        changed = changed.replace(f"\t{new}\t", f"\t{old}\t")
    assert changed == UNIVERSAL


def test_predictions_of_other_sentences_are_refused_and_nothing_is_written(write, tmp_path):
    source = write(CONLL_2003)
    message = error_of(lambda: write_conll(tmp_path / "out", source, [("O", "O", "O"), ("O",)]))
    assert message == f"{source}: found 5 words, expected 4, as many as there are predictions"
    assert [path.name for path in tmp_path.iterdir()] == ["a.conll"]


piece = st.text(
    st.characters(exclude_categories=("Z", "C", "Cs"), exclude_characters="\ufeff"),
    min_size=1,
    max_size=5,
)
separators = st.sampled_from(["\t", " ", "   "])
ends = st.sampled_from(["\n", "\r\n"])
between = st.sampled_from(["", "\t", " ", "\ufeff", "-DOCSTART- O", "\u3000"])


@given(st.data())
def test_with_its_own_tags_a_file_is_written_as_it_was_byte_for_byte(tmp_path_factory, data):
    separator, end, width = data.draw(separators), data.draw(ends), data.draw(st.integers(2, 4))
    edges = data.draw(st.sampled_from(["", " "])) if separator != "\t" else ""
    words = st.lists(piece, min_size=width, max_size=width).map(separator.join)
    lines = data.draw(
        st.lists(st.one_of(words.map(lambda line: edges + line + edges), between), max_size=12)
    )
    first = edges + separator.join(["word"] * width)
    content = data.draw(st.sampled_from(["", "\ufeff"])) + end.join(
        [first, *lines, data.draw(st.sampled_from(["", "\n"]))]
    )
    path = tmp_path_factory.mktemp("conll") / "a"
    path.write_bytes(content.encode())
    examples = read_conll(path)
    write_conll(path.parent / "b", path, [example.tags for example in examples])
    assert (path.parent / "b").read_bytes() == content.encode()
    write_conll(path.parent / "c", path, [["T"] * len(example.tags) for example in examples])
    others = read_conll(path.parent / "c")
    assert [example.words for example in others] == [example.words for example in examples]
    assert {tag for example in others for tag in example.tags} == {"T"}


@pytest.mark.parametrize(
    "name, sentences, words, first",
    [
        ("wnut17/wnut17train.conll", 3394, 62730, "@paulwalk"),
        ("wnut17/emerging.dev.conll", 1009, 15733, "Stabilized"),
        ("wikiann_en/dev.conll", 10000, 80536, "Sioux"),
    ],
)
def test_real_files_are_read_whole_and_written_as_they_were(
    shared_data, tmp_path, name, sentences, words, first
):
    path = shared_data / "tasks" / name
    examples = read_conll(path)
    assert (len(examples), sum(len(example.words) for example in examples)) == (sentences, words)
    assert examples[0].words[0] == first
    write_conll(tmp_path / "out", path, [example.tags for example in examples])
    assert (tmp_path / "out").read_bytes() == path.read_bytes()


def test_a_real_file_without_tags_becomes_the_annotated_one(shared_data, tmp_path):
    folder = shared_data / "tasks" / "wnut17"
    annotated = read_conll(folder / "emerging.test.annotated")
    assert [example.words for example in read_conll(folder / "emerging.test", tags=False)] == [
        example.words for example in annotated
    ]
    write_conll(tmp_path / "out", folder / "emerging.test", [example.tags for example in annotated])
    assert (tmp_path / "out").read_bytes() == (folder / "emerging.test.annotated").read_bytes()
