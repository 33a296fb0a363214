import json
import os
import sys
from pathlib import Path

import pytest

from bertjax.cli.main import main
from tests.factory import small_config

CONFIG = """
import dataclasses
from bertjax.config import *

def get_config():
    return from_dict(Config, {values})
"""


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    from bertjax.config import to_dict

    monkeypatch.chdir(tmp_path)
    for name in ("JAX_PLATFORMS", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # as they were, after the verb set them
    values = to_dict(small_config(mesh={"data": -1}, train={"batch_size": 16}))
    (tmp_path / "small.py").write_text(CONFIG.format(values=values))
    return "small.py"


def failure(capsys, *words):
    assert main(["compile", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("bertjax: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        ("v9:2x2", "one of v4, v5e, v5p, v6e"),
        ("v5e:3x5", "expected a slice such as v4:2x2x2, v5e:2x4"),
        ("v5e", "expected a slice such as"),
        ("", "nothing, expected CHIP:SHAPE"),
    ],
)
def test_a_slice_that_there_is_not_is_one_line(capsys, config_file, topology, expected):
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (jax[tpu])")
    said = failure(capsys, config_file, "--topology", topology)
    assert said.startswith("bertjax: --topology: found ")
    assert expected in said


def test_without_the_compiler_it_says_what_to_install(capsys, config_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    assert "pip install 'jax[tpu]'" in failure(capsys, config_file)


def test_a_mesh_that_does_not_fit_is_one_line(capsys, config_file):
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (jax[tpu])")
    said = failure(capsys, config_file, "--topology", "v5e:2x2", "--mesh.tensor", "3")
    assert said.startswith("bertjax: mesh: found ")


def test_it_prints_and_writes_the_estimate(capsys, config_file):
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (jax[tpu])")
    assert (
        main(["compile", config_file, "--topology", "v5e:2x2", "--model.num-hidden-layers", "1"])
        == 0
    )
    said = capsys.readouterr().out
    for part in (
        "the TPU compiler's estimate",
        "memory of a device",
        "model FLOP utilization",
        "most expensive operations",
        "all-reduce",
    ):
        assert part in said
    found = json.loads(Path("runs/small/compile.json").read_text())
    assert found["estimate"]["topology"] == "v5e:2x2"
    assert found["largest"] is None
    page = Path("runs/small/compile.html").read_text()
    assert f'data-value="{found["estimate"]["mfu"]}"' in page
    assert "<script" not in page
