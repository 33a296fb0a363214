import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.interop.extend import word_vector_files
from bertjax.interop.extend.word_vectors import read_word_vectors

KINDS = ("glove", "word2vec", "word2vec-binary")


def content_of(kind, vectors, *, count=None, newline=True, trailing_space=False):
    """A file as GloVe and word2vec write it; `vectors` is a list of (word, numbers)."""
    width = len(vectors[0][1])
    header = (
        b"" if kind == "glove" else b"%d %d\n" % (len(vectors) if count is None else count, width)
    )
    if kind == "word2vec-binary":
        ends = b"\n" if newline else b""
        return header + b"".join(
            w.encode() + b" " + np.array(v, "<f4").tobytes() + ends for w, v in vectors
        )
    ends = " \n" if trailing_space else "\n"
    return (
        header
        + "".join(f"{w} {' '.join(repr(float(x)) for x in v)}{ends}" for w, v in vectors).encode()
    )


def write(folder, content, packed=False):
    path = folder / ("vectors.txt.gz" if packed else "vectors.txt")
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


words = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=5
)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw):
    width = draw(st.integers(2, 6))
    names = draw(st.lists(words, min_size=1, max_size=6, unique=True))
    return [(name, draw(st.lists(floats, min_size=width, max_size=width))) for name in names]


@given(tables(), st.sampled_from(KINDS), st.booleans(), st.booleans(), st.booleans(), st.data())
def test_each_format_gives_back_the_wanted_vectors_to_the_bit(
    tmp_path_factory, table, kind, newline, space, packed, data
):
    content = content_of(kind, table, newline=newline, trailing_space=space)
    path = write(tmp_path_factory.mktemp("v"), content, packed)
    requested = set(data.draw(st.lists(st.sampled_from([w for w, _ in table])))) | {"not there"}
    vectors = read_word_vectors(path, requested, len(table[0][1]), file_format=kind)
    expected = {w: np.array(v, np.float32) for w, v in table if w in requested}
    assert vectors.keys() == expected.keys()
    for word in vectors:
        assert vectors[word].dtype == np.float32
        np.testing.assert_array_equal(vectors[word], expected[word])


TABLE = [
    ("the", [0.5, -1.25, 3.0]),
    ("cat", [1e-3, 2.0, -7.5]),
    ("Dog", [4.0, 5.0, 6.0]),
    ("été", [1.0, 0.1, 0.2]),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_the_format_is_told_by_the_content(tmp_path, kind, packed):
    path = write(tmp_path, content_of(kind, TABLE), packed)
    vectors = read_word_vectors(path, ["cat", "été"], 3)
    assert vectors.keys() == {"cat", "été"}
    np.testing.assert_array_equal(vectors["cat"], np.float32([1e-3, 2.0, -7.5]))


def test_a_wide_binary_file_is_told_from_text(tmp_path):
    rng = np.random.default_rng(0)
    for width in (2, 50, 300, 2000):
        table = [(f"w{i}", rng.normal(size=width)) for i in range(5)]
        for kind in KINDS:
            vectors = read_word_vectors(write(tmp_path, content_of(kind, table)), ["w3"], width)
            np.testing.assert_array_equal(vectors["w3"], table[3][1].astype(np.float32))


@pytest.mark.parametrize("numbers", [b"AAAABBBB", b"\x00\x00\x01? 1 ?"])
def test_binary_numbers_that_look_like_text_are_not_taken_for_it(tmp_path, numbers):
    vectors = read_word_vectors(write(tmp_path, b"1 2\ncat " + numbers + b"\n"), ["cat"], 2)
    assert vectors["cat"].tobytes() == numbers


def test_words_with_spaces_in_them_take_the_last_numbers(tmp_path):
    lines = [
        ", 0.1 0.2 0.3",
        ". . . 1 2 3",
        "at 4 5 6",
        "at name@domain.com 7 8 9",
        "1 2 3 4",
        "at 5 6 7 8",
    ]
    path = write(tmp_path, "".join(line + "\n" for line in lines).encode())
    vectors = read_word_vectors(path, ["at", "1", ". . .", "at name@domain.com", "at 5"], 3)
    assert {word: vector.tolist() for word, vector in vectors.items()} == {
        "at": [4, 5, 6], "1": [2, 3, 4], ". . .": [1, 2, 3], "at name@domain.com": [7, 8, 9], "at 5": [6, 7, 8],
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_of_equal_words_counts_and_a_word_as_it_stands_goes_before_its_capitals(
    tmp_path, kind
):
    table = [
        ("Apple", [1, 1]),
        ("APPLE", [2, 2]),
        ("apple", [3, 3]),
        ("apple", [4, 4]),
        ("Pear", [5, 5]),
        ("PEAR", [6, 6]),
    ]
    path = write(tmp_path, content_of(kind, table))
    vectors = read_word_vectors(path, ["apple", "pear"], 2, lowercase=True)
    assert {word: vector.tolist() for word, vector in vectors.items()} == {
        "apple": [3, 3],
        "pear": [5, 5],
    }
    assert read_word_vectors(path, ["apple", "pear"], 2).keys() == {"apple"}


@pytest.mark.parametrize("kind", KINDS)
def test_memory_goes_with_what_is_wanted(tmp_path, kind):
    width, count = 500, 5_000  # 10 MB of numbers, 15 MB of text
    rows = np.random.default_rng(0).integers(-999, 999, (count, width)).astype(np.float32)
    path = write(tmp_path, content_of(kind, [(f"w{i}", row) for i, row in enumerate(rows)]))
    seen = []
    tracemalloc.start()
    vectors = read_word_vectors(
        path, ["w0", "w4999"], width, progress=lambda *call: seen.append(call)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(vectors["w4999"], rows[4999])
    assert peak < 5_000_000


def test_progress_counts_the_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(word_vector_files, "REPORT_EVERY", 2)
    for kind, total in (("glove", 0), ("word2vec", 4), ("word2vec-binary", 4)):
        seen = []
        read_word_vectors(
            write(tmp_path, content_of(kind, TABLE)),
            [],
            3,
            progress=lambda *call, seen=seen: seen.append(call),
        )
        assert seen == [("reading word vectors", done, total) for done in (2, 4)]


def text(content, **changes):
    return {"content": content, **changes}


@pytest.mark.parametrize("case,message", [
    (text(b""), r"line 1: found b'', expected a word and its numbers, or a count and a width"),
    (text(b"PK\x03\x04 glove.txt"), r"line 1: found b'PK"),
    (text(b"hello world\n"), r"line 1: found b'hello world.n', expected a word and its numbers"),
    (text(b"the 1 2\n"), r"line 1: found vectors of width 2, expected 3, the width of the model's embeddings"),
    (text(b"the 1 2 3\ncat 1 2\n"), r"line 2: found a word and 2 numbers, expected 3 numbers"),
    (text(b"the 1 2 3\ncat 1 x 3\n"), r"line 2: found no number \(could not convert .*'x'\), expected 3"),
    (text(b"the 1 2 3\ncat 1 nan 3\n"), r"line 2: found \[nan\] as a float32, expected finite numbers"),
    (text(b"the 1 2 3\ncat 1 1e39 3\n"), r"line 2: found \[inf\] as a float32"),
    (text(b"0 3\n"), r"line 1: found a count of 0 words, expected one or more"),
    (text(b"2 300\nthe 1 2 3\ncat 1 2 3\n"), r"line 1: found vectors of width 300, expected 3"),
    (text(b"999999999999 3\nthe 1 2 3\ncat 1 2 3\n"), r"vectors.txt: found 2 entries, expected 999,999,999,999, as the first line says"),
    (text(b"1 3\nthe 1 2 3\ncat 1 2 3\n"), r"vectors.txt: found 2 entries, expected 1, as"),
    (text(b"the 1 2 3\n", file_format="word2vec"), r"line 1: found b'the 1 2 3.n', expected a count of words and a width"),
    (text(b"the 1 2 3\n", file_format="word2vec-binary"), r"line 1: found b'the 1 2 3.n', expected a count"),
    (text(b"2 3\nthe 1 2 3\ncat 1 2 3\n", file_format="glove"), r"line 1: found vectors of width 1, expected 3"),
    (text(content_of("word2vec-binary", TABLE)[:-1]), None),  # its last newline only
    (text(content_of("word2vec-binary", TABLE)[:-2]), r"entry 4: found 11 bytes after the word, expected 12"),
    (text(content_of("word2vec-binary", TABLE, count=10**14)), r"entry 5: found the end, expected 100,000,000,000,000 entries, as"),
    (text(content_of("word2vec-binary", TABLE, count=3)), r"vectors.txt: found bytes after entry 3, expected the end"),
    (text(content_of("word2vec-binary", [("cat", [1, np.inf, 3])])), r"entry 1: found \[inf\] as a float32, expected finite"),
    (text(b"2 3\n" + b"\x00" * 10_000), r"entry 1: found no space in 4,096 bytes, expected a word, a space"),
    (text(b"x" * (word_vector_files.MAX_LINE_BYTES + 1)), r"line 1: found no end of the line, expected 1,052,672 bytes at most"),
    (text(gzip.compress(b"the 1 2 3\n" * 99)[:-12]), r"vectors.txt: cannot be read as word vectors"),
    (text(b"\x1f\x8b not gzip"), r"vectors.txt: cannot be read as word vectors"),
    (text(gzip.compress(b"the 1 2 3\n") + b"rest"), r"vectors.txt: cannot be read as word vectors"),
])  # fmt: skip
def test_damage_is_one_line_naming_the_place(tmp_path, case, message):
    path = write(tmp_path, case.pop("content"))
    if message is None:
        assert read_word_vectors(path, ["cat"], 3, **case).keys() == {"cat"}
        return
    with pytest.raises(UserError, match=message) as error:
        read_word_vectors(path, ["cat"], 3, **case)
    assert str(path) in str(error.value)


def test_a_width_beyond_reason_takes_no_memory(tmp_path):
    path = write(tmp_path, b"2 999999999\ncat " + b"\x00" * 100)
    with pytest.raises(UserError, match=r"width: found 999999999, expected 1 to 16,384"):
        read_word_vectors(path, ["cat"], 999_999_999)


def test_what_is_no_file_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(UserError, match="cannot be read as word vectors"):
            read_word_vectors(path, ["cat"], 3)


edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "put", "drop", "end"]),
        st.integers(0, 10**6),
        st.binary(max_size=6),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content, edits):
    content = bytearray(content)
    for kind, position, some in edits:
        at = position % max(len(content), 1)
        if kind == "flip" and content:
            content[at] ^= 1 << position % 8
        elif kind == "cut":
            del content[at:]
        elif kind == "put":
            content[at:at] = some
        elif kind == "drop":
            del content[at : at + 3]
        else:
            content += some
    return bytes(content)


@settings(max_examples=300)
@given(
    st.sampled_from(KINDS), st.sampled_from(["auto", *KINDS]), st.booleans(), st.booleans(), edits
)
def test_any_damage_gives_an_error_of_one_line_or_finite_vectors(
    tmp_path_factory, kind, asked, packed, inside, edits
):
    content = content_of(kind, TABLE)
    if packed:
        content = (
            gzip.compress(damaged(content, edits))
            if inside
            else damaged(gzip.compress(content), edits)
        )
    else:
        content = damaged(content, edits)
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        vectors = read_word_vectors(
            path, ["the", "cat", "dog", "été"], 3, file_format=asked, lowercase=True
        )
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    for vector in vectors.values():
        assert (vector.shape, vector.dtype) == ((3,), np.float32)
        assert np.isfinite(vector).all()
