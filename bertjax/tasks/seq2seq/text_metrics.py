"""Metrics of generated texts."""

from collections.abc import Sequence

from bertjax.errors import UserError


def bleu(predictions: Sequence[str], references: Sequence[str], lowercase: bool) -> float:
    """Return the corpus BLEU in 0..100 by sacrebleu (arXiv 1804.08771), one reference each."""
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise UserError(
            "bleu: found no package sacrebleu, expected it: pip install sacrebleu"
        ) from error
    # A list in a list: sacrebleu can take several references for each text.
    result = sacrebleu.corpus_bleu(list(predictions), [list(references)], lowercase=lowercase)
    return float(result.score)
