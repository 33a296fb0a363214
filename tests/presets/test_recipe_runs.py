"""Each recipe at a cut size: prepared, trained, killed at its boundaries, and the same at its end."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

import bertjax
from bertjax.config import load_config, to_dict
from bertjax.config.phases.folders import configs_to_prepare
from bertjax.config.phases.resolution import phases_of
from bertjax.training.checkpoint import steps_of
from tests.presets.cut import RECIPES, STEPS, cut
from tests.tiny_library import write_library
from tests.training.checkpoints import array_sums
from tests.training.phases.test_phase_run import figures, killed_at

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCS = ("recipes", "phases", "objectives", "data_format", "finetuning")


def write_english(path):
    """The pages of `docs/` without other letters than ASCII's; a paragraph is a document."""
    pages = [(ROOT / "docs" / f"{name}.md").read_text() for name in DOCS]
    path.write_bytes("\n\n".join(pages).encode("ascii", "ignore"))


def write_chinese(path):
    rng = random.Random(0)
    words = [
        "我们",
        "今天",
        "学习",
        "模型",
        "数据",
        "语言",
        "一个",
        "问题",
        "方法",
        "结果",
        "研究",
        "中文",
        "使用",
        "时间",
        "可以",
        "训练",
    ]
    documents = []
    for _ in range(80):
        lines = ["".join(rng.choices(words, k=rng.randint(4, 9))) + "。" for _ in range(6)]
        documents.append("\n".join(lines))
    path.write_text("\n\n".join(documents) + "\n")


def train(words):
    subprocess.run([sys.executable, "-m", "bertjax.cli.main", *words], check=True)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with text, a small model and its run, and the environment of one device."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Eight devices of two cores would wait for each other most of the time.
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_is_killed_at_its_boundaries_ends_as_the_whole_run(name, place):
    changes = {"data": {"corpus": ("text.txt",)}}
    write_english(place / "text.txt")
    if name.endswith("chinese_base"):
        pytest.importorskip("jieba")
        write_chinese(place / "text.txt")
    config = cut(name)
    if config.model_from_init:
        write_library(place)
        tiny = load_config("tiny.py")
        bertjax.prepare(tiny)
        bertjax.train(tiny, "runs/tiny")
        changes = {"data": {"corpus": ("corpus.txt",)}, "init_from": "runs/tiny"}
    config = config.replace(**changes)
    Path("cut.json").write_text(json.dumps(to_dict(config)))
    for each in configs_to_prepare(config):
        bertjax.prepare(each)
    words = ["train", "cut.json", "--run-dir"]
    train([*words, "whole"])
    run, end = epath.Path("killed"), config.train.steps
    boundaries = [phase.end for phase in phases_of(config)[:-1]] or [STEPS // 2]
    # Of the many phases of one recipe: where its rows get longer, and the last one.
    for step in boundaries if len(boundaries) < 3 else [boundaries[6], boundaries[-1]]:
        killed_at([*words, "killed"], run / "checkpoints" / str(step), 0.0)
        assert step <= steps_of(run)[-1] < end, "killed before its end"
    train([*words, "killed"])
    assert array_sums("killed") == array_sums("whole")
    assert figures(run) == figures(epath.Path("whole"))
    losses = [entry["loss"] for entry in figures(run) if entry["split"] == "train"]
    assert all(loss > 0 for loss in losses)
    assert os.path.exists("whole/report.html")
