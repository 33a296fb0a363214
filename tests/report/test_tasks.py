"""The page of a fine-tuned run, in a browser and without one."""

import json
import re

import numpy as np
import pytest
from etils import epath

from bertjax.config import FinetuneConfig, to_dict
from bertjax.errors import UserError
from bertjax.finetuning.error_analysis import write_evaluation
from bertjax.finetuning.evaluate import Evaluated, Split
from bertjax.report import tasks
from bertjax.report.html import write_report
from bertjax.tasks.classification.predictions import ClassPrediction
from bertjax.tasks.classification.single_label import SingleLabel
from bertjax.tasks.examples import TextExample
from bertjax.tasks.task import EncodedExamples
from bertjax.training import run_config
from tests.factory import small_config
from tests.report.charts import series

LABELS = ("entailment", "neutral", "<b>contra</b>")
CONFUSION = [[3, 1, 0], [1, 2, 1], [0, 0, 4]]
ATTACK = "<script>document.title = 'taken'</script>"
NO_ROWS = EncodedExamples(*(np.zeros(0, np.int64) for _ in range(4)))


def run_of(folder, entries=("mnli=data/MNLI",), rows=(), steps=60, **options):
    run = epath.Path(folder) / "run"
    options = FinetuneConfig(tasks=tuple(entries), max_seq_length=16, **options)
    run_config.write_run_config(run, small_config(finetune=options, train={"steps": steps}))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def rows_of_one():
    rows = []
    for step in range(1, 61):
        rows.append({"step": step, "split": "train", "accuracy": 0.5, "loss": 1.1 - step / 100, "grad_norm": 1.0,
                     "learning_rate": 1e-4, "skipped": 1.0 if step == 7 else 0.0, "tokens": 100.0})  # fmt: skip
        if step % 20 == 0:
            rows[-1]["tokens_per_second"] = 1000.0 + step
            rows.append({"step": step, "split": "validation", "accuracy": (0.5, 0.75, 0.625)[step // 20 - 1],
                         "loss": 1.0 - step / 200, "accuracy/mismatched": 0.4, "loss/mismatched": 0.9,
                         "score": 0.5})  # fmt: skip
    return rows


def evaluate(run, name="mnli", part="", extra=()):
    """`evaluation.json` of real predictions, whose confusion is `CONFUSION`."""
    task = SingleLabel(name, LABELS)
    pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(CONFUSION[i][j])]
    text = lambda n: f"{ATTACK} {n}" if n % 2 else "a long text " * 40  # noqa: E731
    examples = [
        TextExample(str(n), text(n), "its pair", LABELS[i]) for n, (i, _) in enumerate(pairs)
    ]
    predictions = [
        ClassPrediction(LABELS[j], tuple(0.9 if k == j else 0.05 for k in range(3)))
        for _, j in pairs
    ]
    evaluated = Evaluated(predictions, task.figures(predictions, examples) | dict(extra))
    return write_evaluation(
        run, 40, [(task, Split(name, part, examples, NO_ROWS), evaluated)], dict(evaluated.figures)
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = run_of(tmp_path_factory.mktemp("tasks"), rows=rows_of_one())
    evaluate(run, extra={"loss": 0.6})
    return write_report(run)


def values(driver, css):
    return {
        e.get_attribute("id"): e.get_attribute("data-value")
        for e in driver.find_elements("css selector", css)
    }


def test_the_head_shows_the_metrics_of_the_task(browser, page):
    browser.get(f"file://{page}")
    assert values(browser, ".figures [id^=figure-]") == {
        "figure-accuracy": "0.625", "figure-best-accuracy": "0.75", "figure-accuracy-mismatched": "0.4",
        "figure-loss": "0.7", "figure-tokens-per-second": "1040.0", "figure-skipped": "1",
    }  # fmt: skip
    head = browser.find_element("css selector", ".figures").text
    labels = (
        "accuracy of mnli, step 60",
        "best accuracy of mnli, step 40",
        "accuracy of mnli, mismatched",
    )
    assert [text for text in ("62.5%", "75.0%", *labels) if text not in head] == []
    assert "MLM" not in head
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_curves_are_loss_and_metric_with_a_line_for_each_split(browser, page):
    browser.get(f"file://{page}")
    plots = [
        e.get_attribute("id") for e in browser.find_elements("css selector", ".plots [id^=plot-]")
    ]
    assert plots == [
        f"plot-{name}"
        for name in ("loss", "accuracy", "grad-norm", "learning-rate", "tokens-per-second")
    ]
    assert series(browser, "loss", "mnli") == [[20, 40, 60], [0.9, 0.8, 0.7]]
    assert series(browser, "loss", "mismatched") == [[20, 40, 60], [0.9, 0.9, 0.9]]
    steps, losses = series(browser, "loss", "mnli, train")
    assert (steps[0], steps[-1], losses[0]) == (1, 60, 1.09)
    assert series(browser, "accuracy", "mnli") == [[20, 40, 60], [0.5, 0.75, 0.625]]
    for plot in plots:
        assert browser.find_elements("css selector", f"#{plot} .scatterlayer path.js-line"), plot


def test_the_evaluation_shows_figures_confusion_and_calibration(browser, page):
    browser.get(f"file://{page}")
    split = browser.find_element("css selector", "#evaluation #evaluation-mnli")
    find = lambda css: split.find_elements("css selector", css)  # noqa: E731
    assert browser.find_element("id", "evaluation-step").get_attribute("data-value") == "40"
    assert "12 examples" in split.text
    assert [(e.get_attribute("data-figure"), e.text) for e in find("td[data-figure]")] == [
        ("accuracy", "75.0%"), ("loss", "0.600"),
    ]  # fmt: skip
    shown = [
        [find(f'td[data-true="{i}"][data-predicted="{j}"]')[0] for j in range(3)] for i in range(3)
    ]
    assert [[int(cell.get_attribute("data-value")) for cell in row] for row in shown] == CONFUSION
    assert [cell.text.split() for cell in shown[0]] == [["3", "75%"], ["1", "25%"], ["0", "0%"]]
    shades = [cell.value_of_css_property("background-color") for cell in shown[2]]
    assert [re.search(r"[\d.]+(?=\)$)", shade)[0] for shade in shades] == ["0", "0", "0.65"]
    assert [e.text for e in find(".confusion thead th.predicted")] == list(LABELS)
    (error,) = find('[data-figure="expected_calibration_error"]')
    assert float(error.get_attribute("data-value")) == pytest.approx(0.9 - 0.75)
    dots = "return document.getElementById('evaluation-mnli-calibration').data[1]"
    drawn = browser.execute_script(dots)
    assert ([round(x, 6) for x in drawn["x"]], drawn["y"], drawn["customdata"]) == (
        [0.9],
        [0.75],
        [12],
    )


def test_texts_of_errors_are_escaped_and_long_ones_unfold(browser, page):
    browser.get(f"file://{page}")
    rows = browser.find_elements("css selector", "#evaluation .errors tbody tr")
    assert len(rows) == 3
    assert "taken" not in browser.title
    texts = [row.find_element("css selector", "td.text") for row in rows]
    assert any(ATTACK in text.text for text in texts)
    assert "entailment" in rows[0].find_element("css selector", "td.expected").text
    long = next(text for text in texts if "a long text" in text.text)
    brief, folded = long.find_element("css selector", ".brief"), long.size["height"]
    assert brief.is_displayed()
    assert brief.text.endswith("…")
    brief.click()
    assert not brief.is_displayed()
    assert long.size["height"] > 1.5 * folded
    assert long.text.count("a long text") == 40
    assert long.text.endswith("its pair")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize(
    ("scheme", "ink", "width"),
    [("light", "17, 19, 24", 1200), ("dark", "229, 231, 235", 1200), ("dark", "229", 360)],
)
def test_nothing_overflows_in_either_scheme(browser, page, scheme, ink, width):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(f"file://{page}")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        over = """return [...document.querySelectorAll('.evaluation .plot')]
          .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 40))"""
        assert browser.execute_script(over) == []
        cell = browser.find_element("css selector", "#evaluation .errors td.text")
        assert ink in cell.value_of_css_property("color")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def head_of(page):
    figures = re.findall(
        r'<b id="figure-([^"]+)"(?: data-value="([^"]+)")?>([^<]*)</b><span>([^<]*)</span>', page
    )
    return {name: (shown, label) for name, _, shown, label in figures}


def test_several_tasks_have_a_score_and_each_its_own_figures_and_scale(tmp_path):
    entries = ("cola=a", "squad=b", "ab:classification=c", "ab-cd:classification=d")
    row = {"step": 10, "split": "validation", "matthews_correlation/cola": -0.25, "accuracy/cola": 0.5,
           "loss/cola": 0.5, "f1/squad": 81.25, "exact_match/squad": 70.0, "loss/squad": 2.0, "accuracy/ab": 0.9,
           "accuracy/ab-cd": 0.8, "accuracy/ab-cd-x": 0.7, "f1/ab": 0.5, "score": 0.5, "loss": 1.25}  # fmt: skip
    train = {
        "step": 10,
        "split": "train",
        "loss": 1.5,
        "loss/squad": 1.5,
        "span_accuracy/squad": 0.1,
        "skipped": 0,
    }
    page = write_report(run_of(tmp_path, entries, [train, row])).read_text()
    head = head_of(page)
    assert head["matthews-correlation-cola"] == ("-0.250", "Matthews correlation of cola, step 10")
    assert head["f1-squad"] == ("81.2", "F1 of squad, %, step 10")
    assert head["score"] == ("0.500", "mean score, step 10")  # with a correlation among them
    assert head["accuracy-ab"] == ("90.0%", "accuracy of ab, step 10")
    assert head["accuracy-ab-cd-x"] == ("70.0%", "accuracy of ab-cd, x")
    assert head["loss"] == ("1.250", "held-out loss, mean")
    assert "accuracy-cola" not in head
    order = re.findall(r'<div id="plot-([a-z0-9-]+)"', page)
    assert order[:7] == [
        "loss",
        "score",
        "matthews-correlation",
        "f1",
        "f1-ab",
        "accuracy",
        "exact-match",
    ]
    assert "<h2>Exact match of squad</h2>" in page


@pytest.mark.parametrize(
    "entries", [("rte=a",), ("rte=a", "squad=b"), ("ner=a",), ("p:seq2seq=a", "swag=b")]
)
def test_a_run_before_its_first_evaluation_has_a_page(tmp_path, entries):
    page = write_report(run_of(tmp_path, entries)).read_text()
    assert head_of(page)["loss"][0] == "–"
    assert 'id="evaluation"' not in page


@pytest.mark.parametrize(
    ("entry", "row", "metric"),
    [
        ("ner=a", {"f1": 0.5, "accuracy": 0.75}, "f1"),
        ("pos=a", {"accuracy": 0.75}, "accuracy"),
        ("stsb=a", {"spearman": 0.5, "pearson": 0.25}, "pearson"),
        ("mrpc=a", {"f1": 0.5, "accuracy": 0.5}, "accuracy"),
        ("squad=a", {"exact_match": 50.0, "f1": 60.0}, "f1"),
        ("swag=a", {"accuracy": 0.25}, "accuracy"),
        ("p:seq2seq=a", {"exact_match": 0.5, "bleu": 20.0}, "bleu"),
    ],
)
def test_the_metric_is_the_one_that_chooses_the_best_checkpoint(entry, row, metric):
    (shown,) = tasks.reported_tasks(
        FinetuneConfig(tasks=(entry,)), [*row, "loss", "score"]
    ).values()
    assert shown.metric == metric


def test_a_mean_of_shares_is_shown_as_one(tmp_path):
    row = {
        "step": 10,
        "split": "validation",
        "accuracy/rte": 0.5,
        "f1/squad": 80.0,
        "score": 0.65,
        "loss": 1.0,
    }
    assert (
        head_of(write_report(run_of(tmp_path, ("rte=a", "squad=b"), [row])).read_text())["score"][0]
        == "65.0%"
    )


def evaluation_rows(**values):
    steps = zip(*values.values(), strict=True)
    return [
        {"step": 10 * n, "split": "validation", **dict(zip(values, row, strict=True))}
        for n, row in enumerate(steps, 1)
    ]


def test_the_chosen_metric_is_the_one_that_is_shown_with_a_slash_in_its_class_too(tmp_path):
    chosen = ("f1:a/b", "f1:a", "accuracy")
    names = {"f1:a/b": (0.25, 0.5), "f1:a": (0.5, 0.25), "accuracy": (0.75, 0.5)}
    run = run_of(tmp_path, ("own:classification=a",), evaluation_rows(**names), metric=chosen)
    page = write_report(run).read_text()
    assert head_of(page)["f1-a-b"] == ("50.0%", "F1 (a/b) of own, step 20")
    assert head_of(page)["best-f1-a-b"][1] == "best F1 (a/b) of own, step 20"
    assert "F1 (a) of own, b" not in page
    assert re.findall(r'<div id="plot-([a-z0-9-]+)"', page)[:3] == [
        "f1-a-b",
        "f1-a",
        "accuracy",
    ]


def test_the_best_error_is_the_lowest(tmp_path):
    rows = evaluation_rows(mse=(2.0, 0.5, 1.0), pearson=(0.1, 0.2, 0.3), score=(-2.0, -0.5, -1.0))
    head = head_of(write_report(run_of(tmp_path, ("stsb=a",), rows, metric=("mse",))).read_text())
    assert head["mse"] == ("1.000", "mean squared error of stsb, step 30")
    assert head["best-mse"] == ("0.500", "best mean squared error of stsb, step 20")


def test_the_scores_of_the_classes_are_on_the_page(tmp_path):
    run = run_of(tmp_path)
    evaluate(run)
    page = write_report(run).read_text()
    rows = re.findall(
        r'data-class="([^"]*)" data-measure="recall" data-value="([^"]*)">([^<]*)<', page
    )
    assert rows == [
        ("entailment", "0.75", "75.0%"),
        ("neutral", "0.5", "50.0%"),
        ("&lt;b&gt;contra&lt;/b&gt;", "1.0", "100.0%"),
        ("micro average", "0.75", "75.0%"),
        ("macro average", "0.75", "75.0%"),
        ("weighted average", "0.75", "75.0%"),
    ]


def test_an_evaluation_without_scores_of_classes_has_a_page(tmp_path):
    run = run_of(tmp_path)
    path = evaluate(run)
    content = json.loads(path.read_text())
    del content["splits"][0]["class_scores"]
    path.write_text(json.dumps(content))
    page = write_report(run).read_text()
    assert "<h2>Classes</h2>" not in page
    assert "<h2>Confusion</h2>" in page


def test_spans_and_bleu_are_not_multiplied_by_a_hundred():
    show = lambda kind, name, value: format(value, tasks.format_of(kind, name).spec)  # noqa: E731
    assert show("spans", "f1", 81.25) == "81.2"
    assert show("seq2seq", "bleu", 20.0) == "20.0"
    assert show("seq2seq", "exact_match", 0.2) == show("tagging", "f1", 0.2) == "20.0%"
    assert show("spans", "best_f1_thresh", -1.5) == "-1.500"
    assert show("spans", "loss", 1.5) == "1.500"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("splits"), "found no field splits"),
        (lambda content: content.update(step="x"), "step: found 'x'"),
        (lambda content: content["splits"].append(3), r"splits\[1\]: found a int, expected an object"),
        (lambda content: content["splits"][0].pop("figures"), r"splits\[0\]: found no field figures"),
        (lambda content: content["splits"][0].update(task="other"), "task: found other, expected one of the run's, mnli"),
        (lambda content: content["splits"][0]["figures"].update(f1="x"), "figures: f1: found 'x', expected a number"),
        (lambda content: content["splits"][0]["confusion"]["counts"].pop(), "counts: found 2 rows, expected 3 rows"),
        (lambda content: content["splits"][0]["confusion"]["counts"][0].__setitem__(0, "1"), "counts: found another"),
        (lambda content: content["splits"][0]["class_scores"]["classes"][1].pop("f1"), r"classes\[1\]: found no field f1"),
        (lambda content: content["splits"][0]["class_scores"].update(averages=3), "averages: found 3, expected of type list"),
        (lambda content: content["splits"][0].update(constant_answer=3), "constant_answer: found 3, expected of type str"),
        (lambda content: content["splits"][0]["calibration"]["bins"][2].pop("accuracy"), r"bins\[2\]: found no field"),
        (lambda content: content["splits"][0]["errors"][1].update(text=None), r"errors\[1\]: text: found None"),
    ],
)  # fmt: skip
def test_a_broken_or_older_evaluation_is_named(tmp_path, change, message):
    run = run_of(tmp_path)
    path = evaluate(run)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"evaluation\.json.*{message}"):
        write_report(run)


def test_a_figure_without_a_value_and_a_split_of_its_own_are_shown(tmp_path):
    run = run_of(tmp_path)
    evaluate(run, part="mismatched", extra={"loss": float("nan")})
    page = write_report(run).read_text()
    assert 'id="evaluation-mnli-mismatched"' in page
    assert 'data-value="nan"' not in page  # results.py leaves out what JSON has no word for


def test_a_pretraining_run_shows_no_evaluation(tmp_path):
    run = epath.Path(tmp_path)
    (run / "config.json").write_text(json.dumps(to_dict(small_config())))
    (run / "evaluation.json").write_text("{")
    assert "figure-mlm-loss" in write_report(run).read_text()
