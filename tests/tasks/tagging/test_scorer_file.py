"""The input of conlleval: word, gold tag and predicted tag."""

import re
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.tagging.conll import read_conll
from bertjax.tasks.tagging.entity_metrics import entities, entity_scores
from bertjax.tasks.tagging.scorer_file import scorer_lines
from tests.tasks.tagging.test_entity_metrics import WNUT, changed, in_scheme
from tests.tasks.tagging.test_task import sentence


def test_a_line_has_word_gold_and_predicted_and_sentences_are_parted_by_empty_lines():
    examples = [sentence("EU rejects", "B-ORG O"), sentence("Rome", "B-LOC-SUB")]
    predictions = [("B-ORG", "I-ORG"), ("O",)]
    assert list(scorer_lines(examples, predictions)) == [
        "EU B-ORG B-ORG",
        "rejects O I-ORG",
        "",
        "Rome B-LOC-SUB O",
        "",
    ]


def test_blanks_and_the_sign_of_a_boundary_do_not_divide_a_line():
    example = TaggedExample("", ("New York", "a\u00a0b", "-X-"), ("B-big town", "I-big town", "O"))
    assert list(scorer_lines([example], [("O", "B-big town", "O")]))[:3] == [
        "New_York B-big_town O",
        "a_b I-big_town B-big_town",
        "-x- O O",
    ]


def test_forms_and_schemes_that_the_scorer_does_not_know_become_iob2():
    for tags in ("S-A B-A E-A O", "A_B A_B A_I O", "u-a b-a l-a o"):
        lines = list(scorer_lines([sentence("a b c d", tags)], [tuple(tags.split())]))
        assert lines[:4] == ["a B-A B-A", "b B-A B-A", "c I-A I-A", "d O O"]
    for tags in ("I-A B-A O", "I-A E-A O", "NN VB O"):
        lines = list(scorer_lines([sentence("a b c", tags)], [tuple(tags.split())]))
        assert [line.split()[1] for line in lines[:3]] == tags.split()


@given(in_scheme("BIES"), st.booleans())
def test_the_entities_stay_the_same_in_any_scheme(pair, type_first):
    gold, predicted = pair
    if type_first:
        gold, predicted = (
            [[tag if tag == "O" else f"{tag[2:]}-{tag[0]}" for tag in tags] for tags in side]
            for side in pair
        )
    examples = [TaggedExample("", ("w",) * len(tags), tuple(tags)) for tags in gold]
    blocks = "\n".join(scorer_lines(examples, predicted)).split("\n\n")
    read = [[line.split(" ")[1:] for line in block.strip().split("\n")] for block in blocks]
    for tags, guesses, lines in zip(*pair, read, strict=True):
        for column, side in enumerate((tags, guesses)):
            shown = [line[column] for line in lines]
            assert entities(shown) == entities(side)
            assert {tag[0] for tag in shown} <= {"B", "I", "O"} or {t[0] for t in shown} <= set(
                "IEO"
            )


def test_a_published_scorer_reads_it_and_finds_the_same_figures(shared_data, tmp_path):
    folder = shared_data / "tasks" / "wnut17"
    examples = read_conll(folder / "emerging.test.annotated")
    predicted = changed(examples, 5)
    # Its input is parted by tabs.
    lines = [line.replace(" ", "\t") for line in scorer_lines(examples, predicted)]
    (tmp_path / "both").write_text("\n".join(lines), "utf-8")
    command = [sys.executable, "-c", WNUT, folder / "wnuteval.py", tmp_path / "both"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scores, _ = entity_scores([example.tags for example in examples], predicted)
    found = re.search(r"precision: +([\d.]+)%; \s*recall: +([\d.]+)%; \s*FB1: +([\d.]+)", report)
    values = (scores.precision, scores.recall, scores.f1)
    assert found.groups() == tuple(f"{100 * value:.2f}" for value in values)
