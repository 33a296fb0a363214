"""The task of sequence to sequence for a tokenizer."""

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.tasks.seq2seq import decode
from bertjax.tasks.seq2seq.task import Seq2Seq
from bertjax.tasks.seq2seq.text_metrics import DEFAULT_TOKENIZER, check_installed


def make_task(
    name: str,
    tokenizer: Tokenizer,
    *,
    max_target_length: int = 64,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    label_smoothing: float = 0.0,
    bleu_tokenizer: str = DEFAULT_TOKENIZER,
) -> Seq2Seq:
    """Return the task for this tokenizer.

    The defaults of beam size and length penalty are those of arXiv 1706.03762, section 6.1. Raises
    `UserError` if sacrebleu is not installed.
    """
    check_installed()  # now, not after the first epoch
    search = decode.Search(
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        max_target_length=max_target_length,
        beam_size=beam_size,
        length_penalty=length_penalty,
    )
    return Seq2Seq(name, search, label_smoothing, tokenizer.lowercase, bleu_tokenizer)
