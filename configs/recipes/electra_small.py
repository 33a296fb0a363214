"""ELECTRA small: a discriminator of 14 million parameters, and its generator, from one command.

    bertjax prepare recipes/electra_small --data.corpus my/text
    bertjax train recipes/electra_small --run-dir runs/electra_small

Source: arXiv 2003.10555, section 3 and tables 1, 6 and 7, and the authors' repository. The text is
that of BERT, Wikipedia and BooksCorpus; a million steps of 128 rows of 128 tokens. The generator is
a quarter as wide and has all layers; the loss of the discriminator has weight 50.

Hardware and time: one V100 GPU, 4 days. Published figure: GLUE 79.9 on average on the development
sets. The run after which the paper's table has 6 hours, a sixteenth of the steps:
`--train.steps 62500`, GLUE 74.1.

What differs here: as in `electra/small`, whose settings these are. A row is one stretch of text; in
the authors' script some rows were cut into two segments.
"""

from bertjax.config import Config
from bertjax.presets.electra import small


def get_config() -> Config:
    return small.get_config()
