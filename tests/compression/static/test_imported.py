import re
from types import SimpleNamespace

import pytest

from bertjax.compression.static.distill_static import distill_static
from bertjax.compression.static.imported import pooling_of, say_what_is_missing
from bertjax.errors import UserError
from tests.compression.static.teachers import save_teacher, wordpiece


def left(*parts):
    """A model of whose folder `import` left these parts."""
    return SimpleNamespace(run_dir="runs/imported", not_taken=parts)


@pytest.mark.parametrize(
    "parts, asked, pooling",
    [
        ((), "", "mean"),
        ((), "max", "max"),
        (("pooling cls (1_Pooling)", "normalization (2_Normalize)"), "", "cls"),
        (("pooling max",), "", "max"),
        (("pooling cls (1_Pooling)",), "mean", "mean"),
        (("pooling mean + max (1_Pooling)",), "mean", "mean"),
    ],
)
def test_the_pooling_is_as_asked_or_as_the_imported_model_says(parts, asked, pooling):
    assert pooling_of(left(*parts), asked) == pooling


@pytest.mark.parametrize("named", ["mean + max", "lasttoken", "tokens", "weightedmean"])
def test_a_pooling_that_is_not_computed_here_must_be_replaced(named):
    message = f"pooling: found {named}, as runs/imported was imported, expected one of cls, mean"
    with pytest.raises(UserError, match=re.escape(message)):
        pooling_of(left(f"pooling {named} (1_Pooling)"), "")


def test_it_is_read_from_the_teachers_checkpoint(tmp_path):
    said = {"imported": {"not_taken": ["pooling cls (1_Pooling)", "normalization (2_Normalize)"]}}
    run = save_teacher(tmp_path / "run", wordpiece(), said)
    assert distill_static(run, tmp_path / "out").pooling == "cls"


def test_a_dense_layer_that_the_teacher_lacks_is_said(caplog):
    dense = "dense layer of 16 to 4 Tanh (2_Dense)"
    say_what_is_missing(
        left("pooling mean (1_Pooling)", dense, "normalization", "max_seq_length 9")
    )
    (record,) = caplog.records
    assert record.getMessage().endswith(f"does in this model: {dense}")
    say_what_is_missing(left("pooling mean (1_Pooling)", "normalization (2_Normalize)"))
    assert len(caplog.records) == 1
