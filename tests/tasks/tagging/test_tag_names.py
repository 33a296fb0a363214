"""Names of tags that are numbers, from the option or from a file."""

import json

import pytest

from bertjax.config import FinetuneConfig
from bertjax.tasks.files.splits import DataLocation
from bertjax.tasks.tagging.tag_names import tag_names
from tests.tasks.tagging.test_conll import error_of

pytestmark = pytest.mark.quick

NAMES = ("O", "B-PER", "I-PER")
BY_NUMBER = {"0": "O", "1": "B-PER", "2": "I-PER"}
BY_NAME = {"O": 0, "I-PER": 2, "B-PER": 1}


def named(folder, *names, **values):
    return tag_names(DataLocation(str(folder)), FinetuneConfig(label_names=names, **values))


def test_the_option_has_the_names_themselves(tmp_path):
    assert named(tmp_path, *NAMES) == NAMES
    assert named(tmp_path) == ()


@pytest.mark.parametrize(
    "name, content",
    [
        ("labels.txt", "O\nB-PER\nI-PER\n"),
        ("labels", "\ufeffO\r\nB-PER\r\nI-PER\r\n\r\n"),
        ("a.json", json.dumps(NAMES)),
        ("a.json", json.dumps(BY_NUMBER)),
        ("a.json", json.dumps(BY_NAME, indent=1)),
        ("config.json", json.dumps({"layers": 2, "id2label": BY_NUMBER, "label2id": BY_NAME})),
        (
            "dataset_info.json",
            json.dumps(
                {
                    "features": {
                        "tokens": {"feature": {"dtype": "string"}},
                        "pos_tags": {"feature": {"names": ["NN", "VB"], "_type": "ClassLabel"}},
                        "ner_tags": {"feature": {"names": NAMES, "_type": "ClassLabel"}},
                    }
                }
            ),
        ),
    ],
)
def test_a_file_has_them_in_the_folder_of_the_data_or_elsewhere(tmp_path, name, content):
    path = tmp_path / "data" / name
    path.parent.mkdir()
    path.write_bytes(content.encode())
    assert named(path.parent, name) == named(tmp_path, str(path)) == NAMES


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "found broken JSON"),
        ("{}", "found no names of tags"),
        ('{"a": {"names": ["x"]}, "b": {"names": ["y"]}}', "found 2 lists of names"),
        ('["O", "O"]', "found O, O, expected each name once"),
        ('["O", ""]', "found O, , expected each name once, and none empty"),
        ('{"1": "O", "2": "B"}', "found no names of tags"),
    ],
)
def test_a_file_without_names_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    assert error_of(lambda: named(tmp_path, "a.json")).startswith(f"{tmp_path}/a.json: {message}")
    assert error_of(lambda: named(tmp_path, "b.json")) == (
        f"finetune.label_names: found b.json, expected several names, or a file in {tmp_path} or"
        " elsewhere"
    )
