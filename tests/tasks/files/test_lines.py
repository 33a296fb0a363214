import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.errors import UserError
from bertjax.tasks.files.lines import decoded_lines, unmarked_lines

pytestmark = pytest.mark.quick


def write(folder, content):
    path = folder / "a.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("encoding,text", [
    ("latin-1", "¿Qué película?\r\nNinguna «así»"),
    ("windows-1252", "it’s “good” – fine…\nÄ"),
    ("koi8-r", "хороший фильм\nплохой"),
    ("gbk", "好电影\n很差的电影"),
    ("shift_jis", "良い映画\nソース"),
    ("UTF8", "完é\n"),
])  # fmt: skip
def test_lines_of_old_encodings_are_decoded(tmp_path, encoding, text):
    path = write(tmp_path, text.encode(encoding))
    lines = [line.text + line.end for line in decoded_lines(path, encoding)]
    assert "".join(lines) == text
    assert len(lines) == len(text.splitlines())


@given(st.binary(max_size=40).filter(lambda raw: not set(raw) & set(range(0x80, 0xA0))))
@example(b"\xc2\xa0")
@example(b"\xc2\xa0\n\xe9")
def test_latin1_is_decoded_byte_by_byte_unless_the_file_is_utf8(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("lines"), content)
    try:
        text = "".join(line.text + line.end for line in decoded_lines(path, "latin-1"))
    except UserError:
        assert content.decode() != content.decode("latin-1")
    else:
        assert text == content.decode("latin-1")


@pytest.mark.parametrize("encoding,content,message", [
    ("latin-1", "déjà\nvu".encode(), "a.txt: found UTF-8, expected latin-1, as finetune.encoding says"),
    ("gbk", "\ufeffvu".encode(), "a.txt: found UTF-8, expected gbk"),
    ("latin-1", b"fine\nit\x92s", "a.txt, line 2: found the byte 0x92, a control character in Latin-1, expected text; in"),
    ("windows-1252", b"a\x81b", "a.txt, line 1: found the byte 0x81, which is not windows-1252, expected windows-1252"),
    ("utf-8", b"a\nb\xe9", "a.txt, line 2: found the byte 0xe9, which is not UTF-8, expected UTF-8 (or finetune.encoding"),
])  # fmt: skip
def test_a_file_in_another_encoding_is_refused(tmp_path, encoding, content, message):
    with pytest.raises(UserError) as caught:
        list(decoded_lines(write(tmp_path, content), encoding))
    assert message in str(caught.value)


def test_ascii_is_every_encoding_and_a_byte_order_mark_is_no_text(tmp_path):
    assert [line.text for line in decoded_lines(write(tmp_path, b"a\nb"), "latin-1")] == ["a", "b"]
    marked = write(tmp_path, b"\xef\xbb\xbfa\n\xef\xbb\xbf")
    assert [line.text for line in unmarked_lines(marked)] == ["a", "\ufeff"]
