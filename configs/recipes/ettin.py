"""Ettin 150m, all three phases in one run: 2 trillion tokens of open data.

    bertjax prepare recipes/ettin --data.corpus my/text
    bertjax train recipes/ettin --run-dir runs/ettin

Source: arXiv 2507.11412, and the authors' training files. 150 million parameters, as ModernBERT
base; web pages (DCLM), code, papers, forums and books, all published, and with them the order of
every batch.

1. 1.7 trillion tokens in rows of 1,024. The batch grows to 4,608 rows in the first 50 billion, and
   the learning rate rises to 8e-4 in the first 3 billion.
2. 250 billion tokens in rows of 7,999, while the rate falls by half as 1 - sqrt; the base of the
   rotary angles rises from 10,000 to 160,000 in all layers.
3. 50 billion tokens, 15 % masked instead of 30 %, while the rate falls from there to 4 % of it.

Hardware and time: 4 H100, 470 hours. Published figure: MNLI 89.2.

What differs here: the batch grows from 576 rows by doubling, the authors' linearly; all phases read
one text, where the authors' later ones read better text (`bertjax prepare recipes/ettin --phase 2
--data.corpus my/better`, before the first command). For another size take the model, the rates, the
decay and the tokens of warmup and growth of `ettin/17m` and so on.
"""

from bertjax.config import Config, load_config


def get_config() -> Config:
    return load_config("ettin/150m").replace(
        # It clips its updates itself, so gradients are not clipped.
        optimizer={
            "algorithm": "stable_adamw",
            "max_grad_norm": 0.0,
            "warmup_tokens": 3_000_000_000,
        },
        train={
            "steps": 2_890_356,
            "batch_size": 576,
            "batch_size_schedule": "ramp",
            "max_batch_size": 4608,
            "batch_size_tokens": 50_000_000_000,
        },
        phases=(
            "tokens=1.7T",
            # 0.3 * 7999, rounded up.
            "tokens=250B data.prepared_dir=prepared/ettin7999 data.max_seq_length=7999"
            " data.max_predictions_per_seq=2400"
            " model.rotary_base=160000 model.rotary_base_local=160000"
            " optimizer.schedule=sqrt optimizer.end_learning_rate=4e-4"
            " train.batch_size=4608 train.batch_size_schedule=constant",
            # 0.15 * 7999, rounded up. The authors' weight decay, 1e-5, is that of a step at the
            # phase's highest rate; ours is multiplied by the rate.
            "tokens=50B data.prepared_dir=prepared/ettin_decay data.mlm_probability=0.15"
            " data.max_predictions_per_seq=1200"
            " optimizer.peak_learning_rate=4e-4 optimizer.end_learning_rate=1.6e-5"
            f" optimizer.weight_decay={1e-5 / 4e-4}",
        ),
    )
