"""What else in a run an optimizer's algorithm asks for."""

from typing import Any

from bertjax.errors import check


def check_algorithm_of_run(config: Any) -> None:
    """Raise `UserError` where another part of the run forbids its optimizer's algorithm.

    `config` is the `Config` of the run.
    """
    optimizer, finetune = config.optimizer, config.finetune
    # An average of weights from before and after they became 0 is not 0.
    check(
        not (config.train.ema_decay and finetune.makes_sparse),
        where="train.ema_decay",
        found=config.train.ema_decay,
        expected="0, beside finetune.sparsity",
    )
    if optimizer.algorithm == "sophia":
        check(
            config.model.kernels == "xla",
            where="model.kernels",
            found=config.model.kernels,
            expected="xla, for optimizer.algorithm sophia: the kernels have no second derivatives",
        )
    if optimizer.algorithm == "schedule_free":
        # Both set weights by themselves, and would have to set the fast ones too.
        check(
            not optimizer.mixout,
            where="optimizer.mixout",
            found=optimizer.mixout,
            expected="0, for optimizer.algorithm schedule_free",
        )
        check(
            not finetune.makes_sparse,
            where="optimizer.algorithm",
            found=optimizer.algorithm,
            expected="another one, beside finetune.sparsity",
        )
        check(
            optimizer.schedule == "constant",
            where="optimizer.schedule",
            found=optimizer.schedule,
            expected="constant, for optimizer.algorithm schedule_free",
        )
