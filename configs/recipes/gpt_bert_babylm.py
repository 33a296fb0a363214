"""GPT-BERT base for 100 million words: masked and causal rows in one run, on any machine.

    bertjax prepare recipes/gpt_bert_babylm --data.corpus my/text
    bertjax train recipes/gpt_bert_babylm --run-dir runs/gpt_bert_babylm

Source: arXiv 2410.24159, the winner of the BabyLM challenge of 2024, and the authors' scripts. 119
million parameters; equal parts of the BabyLM corpus, FineWeb-Edu and Cosmopedia, read hundreds of
times. One row in 16 is causal, the others predict each masked token one position before it. 15,625
updates: rows of 128 tokens, from 70 % of them on of 256, from 90 % on of 512; the batch grows from
8,192 to 32,768 rows of 128, or as many tokens; the mask rate falls from 30 to 15 %.

Hardware and time: not published; the authors' scripts need a multiple of 16 processes, this one
any number. Published figures of such a model, the baseline of the challenge of 2025, which had ten
epochs and mostly causal rows: BLiMP 79.3, its supplement 70.4.

What differs here:

- The batch grows in ten jumps, in the paper with every update. Each jump compiles the step anew.
- Spans of one to three words are masked, in the paper of one to three tokens.

The average of the weights becomes a run by `bertjax average runs/gpt_bert_babylm --ema --to
runs/averaged`. For 10 million words take the tokenizer, the model and the rates of
`gpt_bert/small`, and 7,812 updates.
"""

from bertjax.config import Config
from bertjax.presets.gpt_bert import base

UPDATES = 15_625
FIRST, LAST = 8192, 32_768
"""Rows of 128 tokens in the first and in the last batch."""
TENTHS = 10
COOL_DOWN = round(0.016 * UPDATES)


def lengths() -> tuple[int, ...]:
    """Return the length of the rows in each tenth of the updates."""
    return (128,) * 7 + (256,) * 2 + (512,)


def rows(tenth: int) -> int:
    """Return the rows of a batch in the middle of a tenth of the updates, a multiple of 64."""
    of_128 = FIRST + (LAST - FIRST) * (tenth + 0.5) / TENTHS
    return 64 * round(of_128 * 128 / lengths()[tenth] / 64)


def phases() -> tuple[str, ...]:
    """Return a phase for each tenth of the updates, and one for the end of the learning rate."""
    ends = [round(UPDATES * tenth / TENTHS) for tenth in range(TENTHS + 1)]
    ends[-1] -= COOL_DOWN
    texts = []
    for tenth, length in enumerate(lengths()):
        text = f"steps={ends[tenth + 1] - ends[tenth]} train.batch_size={rows(tenth)}"
        if tenth and length != lengths()[tenth - 1]:
            # A causal row has a prediction at each position but the last.
            text += (
                f" data.prepared_dir=prepared/gpt_bert_base{length} data.max_seq_length={length}"
                f" data.max_predictions_per_seq={length - 1}"
            )
        texts.append(text)
    rate = base.get_config().optimizer.end_learning_rate
    fall = f"optimizer.schedule=linear optimizer.peak_learning_rate={rate}"
    return (*texts, f"steps={COOL_DOWN} {fall} optimizer.end_learning_rate=0")


def get_config() -> Config:
    return base.get_config().replace(
        data={
            "prepared_dir": "prepared/gpt_bert_base128",
            "max_predictions_per_seq": 127,
            "mlm_probability_to": 0.15,
            "causal_share": 1 / 16,
        },
        model={"mlm_shifted": True},
        optimizer={"warmup_steps": 250},
        train={
            "steps": UPDATES,
            "batch_size": rows(0),
            "batch_size_schedule": "constant",
            "max_batch_size": 0,
            "ema_decay": 0.999,
        },
        phases=phases(),
    )
