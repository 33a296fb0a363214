"""Splits of tagged sentences from files of each format, with the options that change them."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bertjax.config import FinetuneConfig
from bertjax.errors import UserError
from bertjax.tasks.registry import entry_of
from bertjax.tasks.tagging.read import chooses_accuracy, read_examples

NAMES = ("O", "B-PER", "I-PER", "B-ORG")
ROWS = [
    {"id": "0", "tokens": ["EU", "rejects"], "ner_tags": [3, 0]},
    {"id": "1", "tokens": ["Rome"], "ner_tags": [0]},
]
EXPECTED = [("EU", "rejects"), ("B-ORG", "O"), ("Rome",), ("O",)]


def read(folder, split="train", labelled=True, name="ner", **options):
    config = FinetuneConfig(**options)
    examples = read_examples(entry_of(f"{name}={folder}", config), split, config, labelled=labelled)
    flat = []
    for example in examples:
        flat += [example.words, example.tags]
    return flat


def test_numbers_are_named_in_each_format(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(ROWS, indent=1))
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "test.txt").write_text("EU 3\nrejects 0\n\nRome 0\n")
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    for split in ("train", "validation", "test"):
        assert read(tmp_path, split, label_names=NAMES) == EXPECTED
        assert read(tmp_path, split, label_names=("labels.txt",)) == EXPECTED
    assert read(tmp_path, metric=("accuracy",))[1] == ("3", "0")
    assert read(tmp_path, labelled=False)[1] is None
    with pytest.raises(UserError, match=r"train.json, item 1, ner_tags: found numbers"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"sentence test.txt:1: found the tag 3, expected a number"):
        read(tmp_path, "test", label_names=NAMES[:2])


def test_parquet_has_the_names_of_its_numbers(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_pylist(ROWS)
    parquet.write_table(table, tmp_path / "dev.parquet")
    assert read(tmp_path, "validation", label_names=NAMES) == EXPECTED
    features = {
        "ner_tags": {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "Sequence"}
    }
    info = {"info": {"features": features}}
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "train.parquet"
    )
    assert read(tmp_path) == EXPECTED


def test_numbers_as_text_need_names_and_fields_of_tags_are_not_mixed(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{"tokens": ["EU", "says"], "ner_tags": ["1", "0"]}]))
    with pytest.raises(UserError, match=r"ner_tags: found numbers"):
        read(tmp_path)
    assert read(tmp_path, label_names=NAMES)[1] == ("B-PER", "O")
    assert read(tmp_path, metric=("accuracy",))[1] == ("1", "0")
    rows = [{"tokens": ["a"], "ner_tags": ["O"]}, {"tokens": ["b"], "tags": ["B-PER"]}]
    path.write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"item 2: found the tags in tags, expected ner_tags, as"):
        read(tmp_path)


def test_accuracy_beside_another_metric_changes_no_rule(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(ROWS))
    with pytest.raises(UserError, match=r"ner_tags: found numbers"):
        read(tmp_path, metric=("f1_macro", "accuracy"))
    assert read(tmp_path, metric=("accuracy", "f1_macro"))[1] == ("3", "0")
    own = {"tasks": (f"ner:tagging={tmp_path}", "x:tagging=x"), "metric": ("ner=accuracy", "f1")}
    assert read(tmp_path, **own)[1] == ("3", "0")
    with pytest.raises(UserError, match=r"ner_tags: found numbers"):
        read(tmp_path, **{**own, "metric": ("x=accuracy", "f1_macro", "accuracy")})
    (tmp_path / "train.json").unlink()
    (tmp_path / "train.txt").write_text("EU B-ORG\nsays I-ORG\nso RB\n")
    with pytest.raises(UserError, match=r"found the tag 'RB'"):
        read(tmp_path, metric=("f1_macro", "accuracy"))


@pytest.mark.parametrize("tags", ["S E S", "M S E S", "S-A E-A O"])
def test_with_accuracy_capital_letters_are_tags_of_words(tmp_path, tags):
    (tmp_path / "train.txt").write_text("".join(f"a {tag}\n" for tag in tags.split()))
    assert read(tmp_path, metric=("accuracy",))[1] == tuple(tags.split())
    if "-" not in tags:
        # Letters alone, of which none begins an entity, are no tags of entities.
        assert read(tmp_path)[1] == tuple(tags.split())
        return
    with pytest.raises(UserError, match=r"rules of IOBES \(or --finetune.metric accuracy, over"):
        read(tmp_path)


def test_mixed_tags_are_refused_in_training_unless_accuracy_is_chosen(tmp_path):
    (tmp_path / "train.txt").write_text("a B-A\nb I-A\n\nc X\n")
    with pytest.raises(UserError, match=r"sentence train.txt:4, word 1 'c': found the tag 'X'"):
        read(tmp_path)
    for metric in ("accuracy", "ner=accuracy"):
        assert read(tmp_path, metric=(metric,))[-1] == ("X",)


def test_a_label_column_of_conll_u_leaves_the_words_where_they_are(tmp_path):
    lines = ["# text = x", "1-2\tab\t_", "1\ta\tA", "2\tb\tB", "2.1\tc\tC", ""]
    rest = "\t_\tX" + "\t_" * 5
    text = "\n".join(line + rest if "\t" in line else line for line in lines)
    (tmp_path / "train.conllu").write_text(text)
    for column in ("2", "lemma", "LEMMA"):
        assert read(tmp_path, label_column=column) == [("a", "b"), ("A", "B")]
    assert read(tmp_path, label_column="4", name="pos") == [("a", "b"), ("X", "X")]
    assert read(tmp_path) == [("a", "b"), ("_", "_")]


def test_the_cases_are_read(shared_data):
    folder = shared_data.parent / "cases" / "tasks"
    if not folder.exists():
        pytest.skip("needs the small cases beside the data")
    assert read(folder / "ioe2") == [
        ("went", "Rome"),
        ("O", "E-LOC"),
        ("Anna", "Smith"),
        ("I-PER", "E-PER"),
    ]
    assert read(folder / "tags_as_numbers", label_names=NAMES) == EXPECTED[:2]


word = st.text("ab1#海ñ-/_.\u00a0", min_size=1, max_size=4).filter(lambda text: text.strip())
tag = st.sampled_from(["O", "B-PER", "I-PER-SUB", "B-LOC"])
drawn = st.lists(st.lists(st.tuples(word, tag), min_size=1, max_size=5), min_size=1, max_size=4)


def in_conll_u(sentence, tag_column):
    """Lines with a comment, a range, an empty node and other columns between the words."""
    lines = ["# text = x", "1-2\tab" + "\t_" * 8, "0.1\tx" + "\t_" * 8]
    for number, (own_word, own_tag) in enumerate(sentence, 1):
        fields = [str(number), own_word, *"cdefghij"]
        fields[tag_column] = own_tag
        lines.append("\t".join(fields))
    return lines


FORMATS = {
    "a.txt": lambda sentence: [f"{w} {t}" for w, t in sentence],
    "b.tsv": lambda sentence: [f"{w}\tNN\tB-NP\t{t}" for w, t in sentence],
    "c.conllu": lambda sentence: in_conll_u(sentence, 3),
    "d.tsv": lambda sentence: [f"{n}\t{w}\tx\t{t}" for n, (w, t) in enumerate(sentence, 1)],
}


@given(drawn, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_all_formats_have_the_same_sentences(tmp_path_factory, sentences, end, is_marked):
    # The numbers of words are told by a sentence of two words, and by words that are no numbers: a
    # file in which most lines begin with numbers that do not count is refused.
    assume(any(len(sentence) > 1 for sentence in sentences))
    words = [own for sentence in sentences for own, _ in sentence]
    # Beside numbers, lines that begin with # are comments.
    counted = [own for own in words if not own.startswith("#")]
    assume(sum(any(c.isdigit() for c in own) for own in counted) <= len(counted) / 2)
    folder = tmp_path_factory.mktemp("formats")
    expected = []
    for sentence in sentences:
        expected += [tuple(own for own, _ in sentence), tuple(own for _, own in sentence)]
    for name, lines_of in FORMATS.items():
        content = (end + end).join(end.join(lines_of(sentence)) for sentence in sentences)
        (folder / name).write_bytes(("\ufeff" * is_marked + content).encode())
        assert read(folder, "validation", validation_files=(name,)) == expected
    rows = [
        {"tokens": [own for own, _ in sentence], "ner_tags": [own for _, own in sentence]}
        for sentence in sentences
    ]
    (folder / "e.json").write_text(json.dumps(rows))
    (folder / "f.jsonl").write_text(end.join(map(json.dumps, rows)))
    for name in ("e.json", "f.jsonl"):
        assert read(folder, "validation", validation_files=(name,)) == expected
    other = (end + end).join(end.join(in_conll_u(sentence, 7)) for sentence in sentences)
    (folder / "g.conllu").write_bytes(other.encode())
    for column in ("7", "deprel"):
        options = {"validation_files": ("g.conllu",), "label_column": column}
        assert read(folder, "validation", **options) == expected


def test_the_accuracy_of_another_task_may_be_named_in_its_usual_spelling():
    tasks = ("SST-2=x", "ner:tagging=x")
    for other in ("sst2", "SST-2"):
        options = FinetuneConfig(tasks=tasks, metric=(f"{other}=accuracy", "accuracy"))
        assert chooses_accuracy("ner", options)
        options = FinetuneConfig(tasks=tasks, metric=(f"{other}=accuracy", "f1"))
        assert not chooses_accuracy("ner", options)
