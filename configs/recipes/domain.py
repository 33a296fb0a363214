"""Any model, trained further on the text of a domain: 12,500 steps of 2,048 rows.

    bertjax prepare recipes/domain --init-from MODEL --data.corpus my/domain
    bertjax train recipes/domain --init-from MODEL --run-dir runs/domain

MODEL is a run, or a model that `bertjax import` wrote; its tokenizer is used. Source: arXiv
2004.10964, section 3, and the authors' repository: masked words alone, new masks in each step, a
learning rate of 5e-4, RoBERTa's settings otherwise (arXiv 1907.11692: b2 0.98, a warmup of 6 %).
11 to 48 GB of text of biomedicine, computer science, news or reviews.

Hardware and time: one TPU v3-8; hours were not published. Published figures: F1 of RoBERTa base
without and with it: ChemProt 81.9 and 84.2, ACL-ARC 63.0 and 75.4, SciERC 77.3 and 80.8.

What differs here: rows have 128 tokens; for RoBERTa's 512 `--data.max-seq-length 512
--data.max-predictions-per-seq 77`, to both commands. `continue` is a fifth of this, with a lower
rate, for one accelerator.
"""

from bertjax.config import Config, load_config


def get_config() -> Config:
    return load_config("continue").replace(
        data={"prepared_dir": "prepared/domain"},
        optimizer={"peak_learning_rate": 5e-4, "warmup_steps": 750, "b2": 0.98},
        train={"steps": 12_500, "batch_size": 2048},
    )
