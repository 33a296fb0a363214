"""The one tokenizer of a run: where it comes from, and what it must agree with."""

from etils import epath

from bertjax.config import Config
from bertjax.config.phases.resolution import phases_of
from bertjax.data.tokenizers.tokenizer import (
    Tokenizer,
    is_opened_from,
    load_tokenizer,
    open_vocabulary,
)
from bertjax.errors import check, disk_errors
from bertjax.storage import check_locks
from bertjax.training import checkpoint
from bertjax.training.batch_source import corpora
from bertjax.training.integrity.damage import DamagedCheckpointError
from bertjax.training.provenance.data_record import check_fingerprint, short_digest
from bertjax.training.run_config import has_begun
from bertjax.training.saved_model import TOKENIZER, saved_tokenizer


def prepared_tokenizer(config: Config) -> Tokenizer:
    """Load the tokenizer of the prepared data; of a mixture, that of its first folder.

    Opening the shards of the others, and those of later phases, checks that they have the same one.
    """
    first = next(iter(corpora(phases_of(config)[0].config).values()))
    return load_tokenizer(first / TOKENIZER)


def initial_tokenizer(config: Config, run_dir: epath.Path) -> Tokenizer:
    """Load the tokenizer of `config.init_from`, or open the vocabulary of `config.tokenizer`.

    A run that began with this vocabulary goes on with the tokenizer that it saved: earlier versions
    opened some files in another way. Raises `UserError` where neither is given, or the model has no
    tokenizer.
    """
    if config.init_from:
        return saved_tokenizer(*checkpoint.find_checkpoint(config.init_from))
    check(
        config.tokenizer.vocab_file,
        where="tokenizer.vocab_file",
        found="none",
        expected="a vocabulary, or a model in init_from",
    )
    if (run_dir / TOKENIZER).exists():
        tokenizer = load_tokenizer(run_dir / TOKENIZER)
        if is_opened_from(tokenizer.fingerprint, config.tokenizer):
            return tokenizer
    return open_vocabulary(config.tokenizer)


def check_tokenizer(config: Config, tokenizer: Tokenizer, run_dir: epath.Path) -> None:
    """Check that a run can use `tokenizer`; writes nothing.

    Raises `UserError` where the model has fewer embeddings than the tokenizer has entries, and
    where the run, or a model that it starts from, has another tokenizer.
    """
    check(
        tokenizer.vocab_size <= config.model.vocab_size,
        where="model.vocab_size",
        found=config.model.vocab_size,
        expected=f"at least the tokenizer's {tokenizer.vocab_size} entries",
    )
    for folder, other in _saved_tokenizers(config, run_dir):
        check(
            other.fingerprint == tokenizer.fingerprint,
            where=str(folder),
            found=f"tokenizer {short_digest(other.fingerprint)}",
            expected=f"{short_digest(tokenizer.fingerprint)}, which the run is to use",
        )
    # The folder of its tokenizer may be gone or changed; what was trained is in the checkpoint.
    for step in reversed(checkpoint.steps_of(run_dir)):
        newest = run_dir / checkpoint.FOLDER / str(step)
        try:
            record = checkpoint.read_meta(newest)
        except DamagedCheckpointError:
            continue  # the training loop says so, and goes back or refuses
        check_fingerprint(newest, record, tokenizer.fingerprint, where=run_dir)
        break


def _saved_tokenizers(config: Config, run_dir: epath.Path) -> list[tuple[epath.Path, Tokenizer]]:
    """Return the tokenizers that the run's must equal, each with its folder."""
    tokenizers = []
    if (run_dir / TOKENIZER).exists() and has_begun(run_dir):
        tokenizers.append((run_dir / TOKENIZER, load_tokenizer(run_dir / TOKENIZER)))
    models = []
    if config.finetune.decoder_from:
        models.append(checkpoint.find_checkpoint(config.finetune.decoder_from))
    # Fine-tuning takes the tokenizer of `init_from`; pretraining that of the data, which may be
    # another.
    if config.init_from and not config.finetune.tasks:
        model = checkpoint.find_checkpoint(config.init_from)
        if (model[0] / TOKENIZER).exists():  # an imported model may have come without one
            models.append(model)
    for model_dir, folder in models:
        tokenizers.append((model_dir / TOKENIZER, saved_tokenizer(model_dir, folder)))
    return tokenizers


def save_tokenizer(config: Config, tokenizer: Tokenizer, run_dir: epath.Path) -> None:
    """Save the tokenizer in a run that has none yet; called by the first process alone.

    One that a start left there which ended before its first update is replaced.
    """
    folder = run_dir / TOKENIZER
    if folder.exists() and has_begun(run_dir):
        return
    # Under another name until it is whole: a start that fails, its disk full, must not leave a part
    # of it, which the next start would refuse.
    unfinished = run_dir / f"{TOKENIZER}.part"
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        if unfinished.exists():
            unfinished.rmtree()
    tokenizer.save(unfinished, config.model.max_length)
    check_locks(folder)
    with disk_errors(folder):
        if folder.exists():
            folder.rmtree()
        unfinished.rename(folder)
