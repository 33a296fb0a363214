import pytest

from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.errors import UserError
from tests.data.tokenizers.declared.folders import add, put, word_piece


def template_of_an_unknown_token(engine):
    engine["post_processor"]["special_tokens"] = {}


def token_that_is_no_text(engine):
    add(engine, ("\ud800",))


def unknown_type(engine):
    engine["normalizer"] = {"type": "Everything"}


@pytest.mark.parametrize(
    "change", [template_of_an_unknown_token, token_that_is_no_text, unknown_type]
)
def test_what_the_package_cannot_read_is_one_line_that_names_the_file(tmp_path, change):
    engine = word_piece()
    change(engine)
    folder = put(tmp_path / "x", engine)
    with pytest.raises(
        UserError, match=r"tokenizer\.json: (cannot be read|added_tokens)"
    ) as caught:
        read_tokenizer_folder(folder)
    assert "\n" not in str(caught.value)
