"""Entities, and their scores: by hand, by seqeval and by the scorer of WNUT-17."""

import re
import subprocess
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.tagging.conll import read_conll
from bertjax.tasks.tagging.entity_metrics import entities, entity_scores, is_entity_tags
from bertjax.tasks.tagging.schemes import Break, broken, scheme_of

pytestmark = pytest.mark.quick

TAGS = ["O", "B", "I", "B-", "I-"] + [
    f"{place}-{name}" for place in "BIES" for name in ("PER", "LOC", "X-Y", "")
]


def tagged(text):
    """Tags as `B-PER I-PER O`."""
    return tuple(text.split())


@pytest.mark.parametrize(
    "tags, expected",
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        ("O I-PER I-PER O", [("PER", 1, 2)]),
        ("I-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("B-PER I-LOC B-LOC", [("PER", 0, 0), ("LOC", 1, 1), ("LOC", 2, 2)]),
        ("S-PER B-PER I-PER E-PER S-LOC", [("PER", 0, 0), ("PER", 1, 3), ("LOC", 4, 4)]),
        ("B-PER S-PER E-PER", [("PER", 0, 0), ("PER", 1, 1), ("PER", 2, 2)]),
        ("U-PER U-PER B-LOC L-LOC", [("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 3)]),
        ("S-PER B-LOC M-LOC M-LOC E-LOC", [("PER", 0, 0), ("LOC", 1, 4)]),
        ("B I O I", [("_", 0, 1), ("_", 3, 3)]),
        ("B-A-1 I-A-1 I-A-2", [("A-1", 0, 1), ("A-2", 2, 2)]),
        ("O O", []),
        ("", []),
    ],
)
def test_entities_also_of_broken_sequences(tags, expected):
    assert entities(tagged(tags)) == expected


def test_scores_count_an_entity_as_right_only_by_type_and_both_ends():
    gold = [tagged("B-PER I-PER O B-LOC"), tagged("B-LOC I-LOC B-LOC"), tagged("O O")]
    predicted = [tagged("B-PER I-PER O B-ORG"), tagged("B-LOC I-LOC I-LOC"), tagged("O B-LOC")]
    all_types, by_type = entity_scores(gold, predicted)
    assert all_types == (1, 4, 4)
    assert by_type == {"LOC": (0, 2, 3), "ORG": (0, 1, 0), "PER": (1, 1, 1)}
    assert (all_types.precision, all_types.recall, all_types.f1) == (0.25, 0.25, 0.25)
    assert (by_type["ORG"].precision, by_type["ORG"].recall, by_type["ORG"].f1) == (0, 0, 0)
    assert by_type["PER"].f1 == 1
    with pytest.raises(ValueError, match="shorter"):
        entity_scores(gold, predicted[:2])


sentences = st.lists(st.sampled_from(TAGS), max_size=12)


@st.composite
def gold_and_predicted(draw):
    """Sentences of any tags, and others in which some are changed, so that entities agree now and
    then.
    """
    gold = draw(st.lists(sentences.filter(bool), min_size=1, max_size=5))
    change = st.one_of(st.none(), st.none(), st.none(), st.sampled_from(TAGS))
    return gold, [[draw(change) or tag for tag in tags] for tags in gold]


@given(gold_and_predicted())
def test_scores_are_seqevals_to_the_last_digit_on_any_sequences(pair):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    gold, predicted = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets without entities
        whole = seqeval.precision_recall_fscore_support(gold, predicted, average="micro")
        each = (
            seqeval.classification_report(gold, predicted, output_dict=True)
            if any(map(entities, gold))
            else {}
        )
    all_types, by_type = entity_scores(gold, predicted)
    assert (all_types.precision, all_types.recall, all_types.f1, all_types.gold) == whole
    for name, report in each.items():
        if not name.endswith(" avg"):
            mine = by_type.pop(name)
            assert (mine.precision, mine.recall, mine.f1, mine.gold) == tuple(report.values())
    assert not each or not by_type


@given(sentences)
def test_entities_are_seqevals_on_any_sequence(tags):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    assert entities(tags) == seqeval.get_entities(list(tags))


@pytest.mark.parametrize(
    "sequences, expected",
    [
        (["B-PER I-PER O", "B-LOC O"], "IOB2"),
        (["I-PER I-PER O", "I-LOC B-LOC O"], "IOB1"),
        (["I-PER I-PER O I-LOC", "B-LOC O"], "IOB1"),
        (["B-PER I-PER O B-LOC", "I-LOC O"], "IOB2"),
        (["B-PER", "O I-PER I-LOC"], "IOB1"),
        (["B-PER O", "I-LOC O"], "IOB2"),
        (["B-PER E-PER O", "B-LOC O"], "IOBES"),
        (["B-PER M-PER E-PER O", "S-LOC O"], "IOBES"),
        (["U-PER O"], "IOBES"),
        (["O O"], "IOB2"),
        (["NOUN VERB", "O B-PER"], None),
        (["X O"], None),
        ([], "IOB2"),
    ],
)
def test_the_scheme_is_what_most_entities_are_in(sequences, expected):
    assert scheme_of(map(tagged, sequences)) == expected


@pytest.mark.parametrize(
    "scheme, tags, expected",
    [
        ("IOB2", "B-PER I-PER I-PER O B-LOC B-LOC I-LOC", None),
        ("IOB2", "I-PER O", (0, "the beginning", "I-PER")),
        ("IOB2", "B-PER O I-PER", (2, "O", "I-PER")),
        ("IOB2", "O B-PER I-LOC", (2, "B-PER", "I-LOC")),
        ("IOB1", "I-PER I-LOC B-LOC O B-PER", None),
        ("IOBES", "B-PER I-PER E-PER S-LOC O S-PER B-LOC E-LOC", None),
        ("IOBES", "B-PER O", (1, "B-PER", "O")),
        ("IOBES", "O B-PER", (1, "B-PER", "the end")),
        ("IOBES", "O E-PER", (1, "O", "E-PER")),
        ("IOBES", "S-PER I-PER", (1, "S-PER", "I-PER")),
        ("IOBES", "B-PER E-LOC", (1, "B-PER", "E-LOC")),
        ("IOBES", "B-PER B-PER", (1, "B-PER", "B-PER")),
        ("IOB2", "", None),
        ("IOBES", "", None),
    ],
)
def test_the_first_breach_of_a_schemes_rules_is_found(scheme, tags, expected):
    assert broken(tagged(tags), scheme) == (expected and Break(*expected))


@given(sentences.filter(lambda tags: not {tag[0] for tag in tags} & {"E", "S"}))
def test_a_sequence_keeps_the_rules_where_reading_it_strictly_gives_the_same_entities(tags):
    """Strictly: only B begins an entity, and an I that continues none is lost."""
    strict, first = [], None
    for word, tag in enumerate([*tags, "O"]):
        continues = (
            tag[0] == "I" and first is not None and tag[1:].strip("-") == tags[first][1:].strip("-")
        )
        if first is not None and not continues:
            strict.append((first, word - 1))
            first = None
        if tag[0] == "B":
            first = word
    assert (broken(tags) is None) == (
        strict == [(entity.first, entity.last) for entity in entities(tags)]
    )


def test_parts_of_speech_are_no_tags_of_entities():
    assert is_entity_tags(["O", "B-PER", "I", "S-creative-work"])
    for tags in (["NOUN", "X", "O"], ["IN", "BES"], ["O-PER"], ["B-PER", "X-PER"], [""]):
        assert not is_entity_tags(tags)


def changed(examples, step):
    """Predictions: every `step`-th tag is that of another word, which breaks many sequences."""
    tags = [tag for example in examples for tag in example.tags]
    made = [tags[(i * 7919) % len(tags)] if i % step == 0 else tag for i, tag in enumerate(tags)]
    left = iter(made)
    return [[next(left) for _ in example.tags] for example in examples]


@pytest.mark.parametrize(
    "name, breaks",
    [
        ("wnut17/emerging.test.annotated", 0),
        ("wnut17/emerging.dev.conll", 1),
        ("wikiann_en/dev.conll", 0),
    ],
)
def test_real_data_scores_as_seqeval_does(shared_data, name, breaks):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    examples = read_conll(shared_data / "tasks" / name)
    assert scheme_of(example.tags for example in examples) == "IOB2"
    assert sum(broken(example.tags) is not None for example in examples) == breaks
    gold, predicted = [list(example.tags) for example in examples], changed(examples, 5)
    assert sum(broken(tags) is not None for tags in predicted) > 100
    scores, _ = entity_scores(gold, predicted)
    assert 0.3 < scores.f1 < 0.95
    theirs = seqeval.precision_recall_fscore_support(gold, predicted, average="micro")
    assert (scores.precision, scores.recall, scores.f1, scores.gold) == theirs


WNUT = "import sys, builtins, functools, runpy; builtins.reduce = functools.reduce; runpy.run_path(sys.argv.pop(1), run_name='__main__')"


def test_real_data_scores_as_the_scorer_of_wnut17_does(shared_data, tmp_path):
    folder = shared_data / "tasks" / "wnut17"
    examples = read_conll(folder / "emerging.test.annotated")
    predicted = changed(examples, 5)
    lines = [
        "".join(
            f"{word}\t{tag}\t{guess}\n"
            for word, tag, guess in zip(example.words, example.tags, tags, strict=True)
        )
        for example, tags in zip(examples, predicted, strict=True)
    ]
    (tmp_path / "both").write_text("\n".join(lines), "utf-8")
    # It is written for Python 2, where `reduce` needs no import.
    command = [sys.executable, "-c", WNUT, folder / "wnuteval.py", tmp_path / "both"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition(
        "### SURFACE"
    )[0]
    scores, by_type = entity_scores([example.tags for example in examples], predicted)
    words = sum(len(tags) for tags in predicted)
    assert f"processed {words} tokens with {scores.gold} phrases; " in report
    assert f"found: {scores.predicted} phrases; correct: {scores.correct}." in report
    percent = re.findall(r"precision: +([\d.]+)%; \s*recall: +([\d.]+)%; \s*FB1: +([\d.]+)", report)
    mine = [scores, *by_type.values()]
    assert percent == [
        tuple(f"{100 * x:.2f}" for x in (score.precision, score.recall, score.f1)) for score in mine
    ]
