"""Checks of the fields of `FinetuneConfig` by which weights become 0 during fine-tuning."""

import re
from typing import Any, NamedTuple

from bertjax.config.model import ModelConfig
from bertjax.config.range_checks import fraction, fraction_below_one, must_equal, positive
from bertjax.errors import check, excerpt


class Pattern(NamedTuple):
    """A pattern N:M: of each M weights that follow each other, N may be other than 0."""

    kept: int
    """N."""
    group: int
    """M."""


def pattern_of(text: str) -> Pattern:
    """Return the pattern that `finetune.sparsity_pattern` names; it must have been checked."""
    kept, _, group = text.partition(":")
    return Pattern(int(kept), int(group))


def check_sparsity(finetune: Any) -> None:
    """Raise `UserError` for the first field of sparsity that is out of range."""
    fraction_below_one("finetune", finetune, "sparsity")
    fraction("finetune", finetune, "sparsity_begin", "sparsity_end")
    positive("finetune", finetune, "sparsity_interval")
    text = finetune.sparsity_pattern
    is_pattern = re.fullmatch(r"[1-9][0-9]{0,8}:[1-9][0-9]{0,8}", text, re.ASCII) is not None
    check(
        not text or (is_pattern and pattern_of(text).kept < pattern_of(text).group),
        where="finetune.sparsity_pattern",
        found=excerpt(text),
        expected="N:M with N below M, such as 2:4",
    )
    check(
        not text or not finetune.sparsity,
        where="finetune.sparsity",
        found=finetune.sparsity,
        expected=f"0 beside finetune.sparsity_pattern {text}, which says the share",
    )
    check(
        finetune.sparsity_begin <= finetune.sparsity_end,
        where="finetune.sparsity_begin",
        found=finetune.sparsity_begin,
        expected=f"at most finetune.sparsity_end ({finetune.sparsity_end})",
    )


def check_sparse_run(config: Any) -> None:
    """Raise `UserError` where weights are to become 0 and another setting forbids it.

    `config` is the `Config` of the run.
    """
    finetune, optimizer = config.finetune, config.optimizer
    if not finetune.makes_sparse:
        return
    name = "finetune.sparsity" if finetune.sparsity else "finetune.sparsity_pattern"
    check(
        finetune.tasks,
        where=name,
        found=finetune.sparsity or finetune.sparsity_pattern,
        expected="none without finetune.tasks",
    )
    check(
        optimizer.freeze != "encoder",
        where="optimizer.freeze",
        found=optimizer.freeze,
        expected=f"none or embeddings, beside {name}, which changes the encoder",
    )
    # Mixout puts back the first values, also those of weights that have become 0.
    must_equal("optimizer", optimizer, f"beside {name}", freeze_layers=0, mixout=0)
    if finetune.sparsity_pattern:
        _check_inputs(config.model, pattern_of(finetune.sparsity_pattern))


def _check_inputs(model: ModelConfig, pattern: Pattern) -> None:
    """Raise `UserError` where groups of M do not divide the inputs of a kernel."""
    inputs = {
        "model.hidden_size": model.hidden_size,
        "the width of all heads": model.attention_width,
        "model.intermediate_size": model.intermediate_size,
    }
    for name, width in inputs.items():
        check(
            width % pattern.group == 0,
            where="finetune.sparsity_pattern",
            found=f"{pattern.kept}:{pattern.group}",
            expected=f"N:M with an M that divides {name} ({width})",
        )
