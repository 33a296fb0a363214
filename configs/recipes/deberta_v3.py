"""DeBERTa-v3 base: replaced tokens, with embeddings that the two networks share without gradients.

    bertjax prepare recipes/deberta_v3 --data.corpus my/text
    bertjax train recipes/deberta_v3 --run-dir runs/deberta_v3

Source: arXiv 2111.09543, and the authors' script `rtd.sh` with its `rtd_base.json`. 184 million
parameters, of which 98 million are word embeddings, and a generator of half the layers and the same
width. 160 GB of English text (Wikipedia, books, news, web pages, stories). Learning rate, batch and
steps are those of the script, the weight of the discriminator's loss, 50, that of the paper.

Hardware and time: not published. The paper has 500,000 steps of 8,192 rows, 16 times the tokens of
the script. Published figures: MNLI 90.6 and 90.7, SQuAD 2.0 F1 88.4 on the development sets.

What differs here:

- Both networks are updated in one step; in the script the generator first (docs/objectives.md).
- The discriminator's head does not add the hidden state of the first token.
- For another size, take the model of `deberta_v3/small` or `deberta_v3/xsmall`; the script has
  64 rows and a rate of 3e-4 for the smallest.
"""

from bertjax.config import Config, ReplacedConfig
from bertjax.presets.deberta_v3 import base


def get_config() -> Config:
    return base.get_config().replace(
        # In the script all tokens to predict become [MASK].
        data={"mask_shares": (1.0, 0.0, 0.0)},
        model={"heads": ("rtd",)},
        replaced=ReplacedConfig(
            generator="disentangled", generator_size=1.0, generator_layers=0.5, weight=50.0
        ),
    )
