import copy

import pytest
from etils import epath

from bertjax.config import to_dict
from bertjax.errors import UserError
from bertjax.report import estimate
from bertjax.report.html import write_report
from bertjax.training import run_config
from tests.factory import small_config

FOUND = {
    "topology": "v5e:2x2",
    "slices": 1,
    "chip": "v5e",
    "chips": 4,
    "mesh": {"replica": 1, "data": 4, "fsdp": 1, "tensor": 1, "sequence": 1},
    "batch_size": 256,
    "length": 128,
    "remat": "none",
    "dtype": "bfloat16",
    "fits": True,
    "refusal": "",
    "model_flops": {"layers": 10**12, "attention": 10**11, "heads": 10**11},
    "program_flops": 1.3e12,
    "mfu": 0.4567,
    "tokens_per_second": 331_030.8,
    "memory": {
        "parameters": 2**29, "optimizer": 2**30, "batch": 10, "activations": 2**31, "code": 5, "padding": 5,
        "available": 2**34,
    },
    "timing": {
        "step": 0.0989, "compute": 0.09, "kernels": 0.004, "collectives": 0.004, "unestimated": 0.0009,
        "overlapped": 0.001, "unestimated_count": 27, "unstated_kernels": 0, "unknown_loops": [],
    },
    "operations": [
        {"name": "fusion.7", "where": "encoder/layers/mlp/up <dot>", "phase": "forward", "times": 12,
         "seconds": 0.0073, "share": 0.0739, "basis": "cycles"},
    ],
    "collectives": [
        {"kind": "all-reduce", "axes": ["data"], "bytes": 14_169_600, "times": 12, "seconds": 0.00255,
         "overlapped": False, "where": "mlp", "phase": "backward"},
    ],
}  # fmt: skip


def test_the_section_shows_what_was_found_escaped_and_labelled():
    shown = estimate.estimate_html({"estimate": FOUND, "largest": None, "search": []})
    assert "Nothing here was measured" in shown
    for part in ("98.90 ms", "45.7%", "22%", "14.17", "all-reduce", "&lt;dot&gt;", "7.4"):
        assert part in shown
    assert "<dot>" not in shown
    assert "state no cost" not in shown


def test_what_is_left_out_of_the_time_is_said():
    found = copy.deepcopy(FOUND)
    found["timing"] |= {"unstated_kernels": 3, "unknown_loops": ["a/while"]}
    shown = estimate.estimate_html({"estimate": found})
    assert "3 kernels state no cost" in shown
    assert "a/while" in shown


def test_a_step_that_does_not_fit_a_largest_batch_and_a_search():
    refused = FOUND | {
        "fits": False,
        "refusal": "Ran out of memory",
        "memory": None,
        "timing": None,
        "mfu": None,
    }
    shown = estimate.estimate_html(
        {
            "estimate": refused,
            "largest": {"batch_size": 96, "refused": 100},
            "search": [FOUND, refused],
        }
    )
    assert "Does not fit: Ran out of memory" in shown
    assert "96 rows fit, 100 does not" in shown
    assert "98.90" in shown
    assert "does not fit</td>" in shown


def write(folder, answer):
    import json

    (folder / estimate.FILE).write_text(json.dumps(answer))


def test_a_runs_report_has_the_section_and_a_folder_that_is_none_a_page(tmp_path):
    write(tmp_path, {"estimate": FOUND})
    page = estimate.write_estimate_page(epath.Path(tmp_path)).read_text()
    assert 'id="estimate"' in page
    run_config.write_run_config(epath.Path(tmp_path), small_config())
    assert to_dict(run_config.read_run_config(epath.Path(tmp_path)))["seed"] == 0
    assert 'id="estimate"' in write_report(tmp_path).read_text()


def test_a_run_without_an_estimate_has_no_section(tmp_path):
    run_config.write_run_config(epath.Path(tmp_path), small_config())
    assert 'id="estimate"' not in write_report(tmp_path).read_text()


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / estimate.FILE).write_text("{")
    with pytest.raises(UserError, match="compile.json: cannot be read"):
        estimate.estimate_section(epath.Path(tmp_path))
