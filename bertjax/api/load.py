"""Load the tokenizer of a run or a prepared folder."""

from etils import epath

from bertjax.data.tokenizers import tokenizer as tokenizers
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.given_files import place_of
from bertjax.training import checkpoint
from bertjax.training.saved_model import TOKENIZER, saved_tokenizer


def load_tokenizer(path: epath.PathLike) -> Tokenizer:
    """Load the tokenizer of a run folder, a prepared folder, or a saved tokenizer's folder.

    Raises `UserError` if there is none, or if a run was trained with another one.

    >>> import bertjax
    >>> tokenizer = bertjax.load_tokenizer("runs/tiny")
    >>> ids, begins = tokenizer.encode_batch(["the dog", "no one"])
    >>> begins.shape, tokenizer.decode(ids[begins[0]:begins[1]])
    ((3,), 'the dog')
    """
    inside = place_of(path) / TOKENIZER
    # A sweep keeps the tokenizers of runs whose checkpoints it removes.
    if inside.exists() and checkpoint.has_checkpoint(epath.Path(path)):
        return saved_tokenizer(*checkpoint.find_checkpoint(path))
    return tokenizers.load_tokenizer(inside if inside.exists() else path)
