import json
import math
import os
import re

import pytest
from etils import epath

from bertjax.config import to_dict
from bertjax.errors import UserError
from bertjax.report.html import write_report
from tests.factory import small_config
from tests.report.charts import series

PLOTS = (
    "mlm-loss",
    "mlm-accuracy",
    "nsp-loss",
    "nsp-accuracy",
    "grad-norm",
    "learning-rate",
    "tokens-per-second",
)


def run_of(folder, steps, total=200):
    """A run folder with the rows that a run writes."""
    run = epath.Path(folder) / "a <run>"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(to_dict(small_config(train={"steps": total}))))
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            row = {"step": step, "split": "train", "mlm_loss": 3 + 5 * math.exp(-step / 50), "mlm_accuracy": 0.1,
                   "nsp_loss": 0.7, "nsp_accuracy": 0.5, "learning_rate": 1e-4, "param_norm": 9.0, "grad_norm": None if step == 7 else 1.0,
                   "skipped": 1.0 if step == 7 else 0.0, "tokens": 100.0}  # fmt: skip
            if step % 10 == 0:
                row["tokens_per_second"] = 1000.0 + step
            file.write(json.dumps(row) + "\n")
            if step % 50 == 0:
                row = {"step": step, "split": "validation", "mlm_loss": 4.0 - step / 100, "mlm_perplexity": 33.25,
                       "mlm_accuracy": 0.25, "nsp_loss": 0.6, "nsp_accuracy": 0.75, "unigram_entropy": 5.5}  # fmt: skip
                file.write(json.dumps(row) + "\n")
        file.write('{"step": 999')  # a kill in the middle of a line
    return run


def test_a_browser_shows_the_figures_and_the_curves(browser, tmp_path):
    run = run_of(tmp_path, 150)
    browser.get(f"file://{write_report(run)}")
    shown = {
        e.get_attribute("id"): e.text
        for e in browser.find_elements("css selector", "[id^=figure-]")
    }
    assert shown == {
        "figure-steps": "step 150", "figure-mlm-loss": "2.500", "figure-unigram-entropy": "5.500",
        "figure-mlm-perplexity": "33.2", "figure-mlm-accuracy": "25.0%", "figure-nsp-accuracy": "75.0%",
        "figure-best-mlm-loss": "2.500", "figure-tokens-per-second": "1,080", "figure-skipped": "1",
    }  # fmt: skip
    assert "best MLM loss, step 150" in browser.page_source
    assert browser.find_element("css selector", "h1").text == "a <run>"
    for plot in PLOTS:
        lines = browser.find_elements("css selector", f"#plot-{plot} .scatterlayer path.js-line")
        assert lines, plot
        assert [
            d for line in lines if not re.match(r"M[\d.,-]+[LHV]", d := line.get_attribute("d"))
        ] == [], plot
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    resources = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert [name for name in resources if not name.startswith(("data:", "blob:"))] == []


def test_the_drawn_series_are_the_rows_of_the_run(browser, tmp_path):
    browser.get(f"file://{write_report(run_of(tmp_path, 150))}")
    assert series(browser, "mlm-loss", "held out") == [[50, 100, 150], [3.5, 3.0, 2.5]]
    assert series(browser, "mlm-loss", "unigram entropy") == [[0, 150], [5.5, 5.5]]
    steps, norms = series(browser, "grad-norm", "each step")
    assert steps == list(range(1, 151))
    assert [step for step, norm in zip(steps, norms, strict=True) if norm is None] == [7]
    assert series(browser, "tokens-per-second", "each step")[0] == list(range(10, 151, 10))


@pytest.mark.parametrize(
    ("scheme", "paper", "ink"),
    [("light", "255, 255, 255", "17, 19, 24"), ("dark", "17, 19, 24", "229, 231, 235")],
)
def test_page_and_hover_box_follow_the_colour_scheme(browser, tmp_path, scheme, paper, ink):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.wait import WebDriverWait

    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(f"file://{write_report(run_of(tmp_path, 100))}")
    assert paper in browser.find_element("tag name", "body").value_of_css_property(
        "background-color"
    )
    plot = browser.find_element("css selector", "#plot-mlm-loss .nsewdrag")
    ActionChains(browser).move_to_element(plot).perform()
    box = "#plot-mlm-loss .hoverlayer .legend"
    WebDriverWait(browser, 10).until(
        lambda b: b.find_elements("css selector", f"{box} text.legendtext")
    )
    assert paper in browser.find_element("css selector", f"{box} rect.bg").value_of_css_property(
        "fill"
    )
    assert ink in browser.find_element(
        "css selector", f"{box} text.legendtext"
    ).value_of_css_property("fill")


def test_a_single_step_is_a_dot_in_the_plot(browser, tmp_path):
    browser.get(f"file://{write_report(run_of(tmp_path, 1))}")
    assert browser.find_elements("css selector", "#plot-mlm-loss .scatterlayer path.point")
    assert "nothing logged yet" in browser.find_element("css selector", ".plots").text
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("steps", [0, 1, 30])
def test_a_run_that_has_just_begun_has_a_report(tmp_path, steps):
    page = write_report(run_of(tmp_path, steps)).read_text()
    assert f'id="figure-steps" data-value="{steps}"' in page
    assert re.search(r'<b id="figure-mlm-loss">–</b>', page)


def test_a_long_run_has_a_report_of_bounded_size_with_its_last_step(tmp_path):
    page = write_report(run_of(tmp_path, 40_000, total=40_000)).read_text()
    assert 'data-value="40000"' in page
    assert len(page) < 5_500_000  # plotly's own 4.9 MB, and the curves


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        write_report(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full to stand for a full disk")
def test_a_full_disk_is_told_in_a_line_and_the_old_report_stays(tmp_path, known_unfinished_names):
    run = run_of(tmp_path, 3)
    before = write_report(run).read_text()
    os.symlink("/dev/full", run / "report.html.unfinished")
    with pytest.raises(
        UserError, match=r"report\.html: cannot be written \(No space left on device\)"
    ):
        write_report(run)
    assert (run / "report.html").read_text() == before
    assert not (run / "report.html.unfinished").exists()


def test_a_page_names_the_parts_that_bert_does_not_have(tmp_path):
    run = run_of(tmp_path, 1)
    assert "64 · float32</p>" in write_report(run).read_text()
    config = small_config().replace(model={"positions": "sinusoidal", "feed_forward": "gated"})
    (run / "config.json").write_text(json.dumps(to_dict(config)))
    page = write_report(run).read_text()
    assert "float32<br>positions sinusoidal · feed_forward gated</p>" in page
