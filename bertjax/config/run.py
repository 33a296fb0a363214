"""Configuration of one run: all sections together, and the checks between sections."""

from dataclasses import dataclass, field

from bertjax.config.data import DataConfig, TokenizerConfig, causal_count
from bertjax.config.distill import DistillConfig
from bertjax.config.families import FAMILIES
from bertjax.config.field_types import check_fields
from bertjax.config.finetune import FinetuneConfig
from bertjax.config.model import Head, ModelConfig
from bertjax.config.objectives.adaptive import AdaptiveConfig, check_adaptive
from bertjax.config.objectives.replaced import ReplacedConfig, check_replaced
from bertjax.config.optimization.budget import check_budget
from bertjax.config.optimization.run_checks import check_algorithm_of_run
from bertjax.config.phases.resolution import phases_of
from bertjax.config.serialization import replaced
from bertjax.config.sparsity import check_sparse_run
from bertjax.config.training import MeshConfig, OptimizerConfig, TrainConfig
from bertjax.errors import check, excerpt, nearest


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: its data, model, optimizer, training loop and device mesh."""

    seed: int = 0
    """Seed of all random choices: parameters, data order, masks, dropout; 0 to 2**32 - 1."""
    init_from: str = ""
    """Run or checkpoint folder with the initial parameters; empty: random parameters.
    Only the parameters are taken: the run starts at step 0 with a new optimizer state.
    """
    model_from_init: bool = False
    """Take the model's configuration and its tokenizer from init_from as well.
    The sections `model` and `tokenizer` of the configuration file are then not used.
    """
    new_heads: tuple[Head, ...] = ()
    """Heads of `model` that start with random parameters.
    A head that the model in init_from lacks must be listed here. If that model has a listed head,
    its parameters are not used.
    """
    phases: tuple[str, ...] = ()
    """Phases of the run, one after another, each a text of words NAME=VALUE; none: one phase.
    steps=N or tokens=N is its length (rows times their length; 50B is 50 billion), which the last
    phase may leave out; from=STEP may say where it begins. The other words are fields that change
    from there on, such as data.max_seq_length=512 (docs/phases.md).
    """
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    replaced: ReplacedConfig = field(default_factory=ReplacedConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)

    def __post_init__(self) -> None:
        check_fields("", self)
        # Compiled programs take the seed as a uint32.
        check(0 <= self.seed < 2**32, where="seed", found=self.seed, expected="0 to 2**32 - 1")
        _check_heads(self)
        _check_lengths(self)
        _check_finetuning(self)
        _check_layers(self)
        _check_steps(self)
        _check_mesh(self)
        _check_family(self)
        _check_phases(self)
        _check_objective(self)
        check_budget(self)
        check_sparse_run(self)
        check_algorithm_of_run(self)
        check_replaced(self)
        check_adaptive(self)

    def replace(self, **changes: object) -> "Config":
        """Return a copy with other values; they are checked like those of a new configuration.

        For a section, give a mapping of the fields that change, or a whole section. For any other
        field, give its value:

            >>> config = Config().replace(seed=1, train={"batch_size": 512})
            >>> config.seed, config.train.batch_size, config.train.steps
            (1, 512, 1000000)

        Raises `UserError` for a field that does not exist (with the most similar valid name), a
        value of a wrong type, or a value that is out of range.
        """
        return replaced(self, changes)

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """Sequence lengths that batches may have, in tokens, ascending.

        Pretraining has one, `data.max_seq_length`. Fine-tuning has `finetune.max_seq_length` and
        all shorter `finetune.length_buckets`.
        """
        if not self.finetune.tasks:
            return (self.data.max_seq_length,)
        longest = self.finetune.max_seq_length
        shorter = [length for length in self.finetune.length_buckets if length < longest]
        return (*shorter, longest)

    @property
    def dropout_follows_rows(self) -> bool:
        """True if dropout's bits do not depend on how many parts a batch is computed in."""
        return self.train.dropout_numbering == "row" and self.model.dropout_bits != "rbg"


def _check_heads(config: Config) -> None:
    check(
        set(config.new_heads) <= set(config.model.heads),
        where="new_heads",
        found=config.new_heads,
        expected="heads that are in model.heads",
    )


def _check_lengths(config: Config) -> None:
    model = config.model
    limit = "model.max_position_embeddings"
    if model.position_offset:
        limit += " - model.position_offset"
    check(
        config.data.max_seq_length <= model.max_length,
        where="data.max_seq_length",
        found=config.data.max_seq_length,
        expected=f"at most {limit} ({model.max_length})",
    )


def _check_finetuning(config: Config) -> None:
    finetune = config.finetune
    if finetune.tasks:
        check(
            finetune.max_seq_length <= config.model.max_length,
            where="finetune.max_seq_length",
            found=finetune.max_seq_length,
            expected=f"at most the model's positions ({config.model.max_length})",
        )
        check(
            config.train.batch_size_schedule == "constant",
            where="train.batch_size_schedule",
            found=config.train.batch_size_schedule,
            expected="constant, for fine-tuning: its batches are of several lengths",
        )
    check(
        not finetune.decoder_from or config.init_from,
        where="finetune.decoder_from",
        found=finetune.decoder_from,
        expected="init_from beside it, for the encoder",
    )


def _check_layers(config: Config) -> None:
    """Check the fields that are numbers of layers, and that no random layer is frozen."""
    # Layers that share their parameters can only be frozen or made anew as one.
    stack = 1 if config.model.share_layers else config.model.num_hidden_layers
    counts = {
        "finetune.reinit_layers": config.finetune.reinit_layers,
        "optimizer.freeze_layers": config.optimizer.freeze_layers,
    }
    for name, layers in counts.items():
        check(
            layers <= stack,
            where=name,
            found=layers,
            expected=f"at most the model's layers, {stack} with parameters of their own",
        )
    reinitialized = config.finetune.reinit_layers > 0 or config.finetune.reinit_pooler
    check(
        not reinitialized or config.optimizer.freeze != "encoder",
        where="optimizer.freeze",
        found=config.optimizer.freeze,
        expected="another value beside finetune.reinit_layers: what is random must be trained",
    )


def _check_phases(config: Config) -> None:
    others = {
        "finetune.tasks": config.finetune.tasks,
        "distill.teacher": config.distill.teacher,
        "optimizer.restarts": config.optimizer.restarts,
        "train.batch_size_schedule adaptive": config.train.batch_size_schedule == "adaptive",
    }
    for name, value in others.items():
        check(
            not config.phases or not value,
            where="phases",
            found=f"{len(config.phases)} beside {name}",
            expected="none",
        )
    tokens = {
        "optimizer.warmup_tokens": config.optimizer.warmup_tokens,
        "optimizer.decay_tokens": config.optimizer.decay_tokens,
        "train.keep_every_tokens": config.train.keep_every_tokens,
    }
    for name, value in tokens.items():
        check(
            not config.finetune.tasks or not value,
            where=name,
            found=value,
            expected="0 for fine-tuning, whose batches are of several lengths",
        )
    phases_of(config)


def _check_objective(config: Config) -> None:
    data, rows = config.data, config.train.batch_size
    # Fine-tuning keeps the section `data` of pretraining, and does not use it.
    if config.finetune.tasks:
        return
    check(
        # A term of distillation weighs a masked token as any other, and every pair of tokens.
        not config.distill.teacher or (data.objective == "masked" and not data.causal_share),
        where="distill.teacher",
        found=excerpt(config.distill.teacher),
        expected="none, for data.objective diffusion or data.causal_share",
    )
    if not data.causal_share:
        return
    check(
        config.model.kernels == "xla",
        where="model.kernels",
        found=config.model.kernels,
        expected=f"xla, for data.causal_share {data.causal_share}: the kernels see whole rows",
    )
    causal = causal_count(data.causal_share, rows)
    check(
        causal > 0 and (causal < rows or data.causal_share == 1),
        where="data.causal_share",
        found=data.causal_share,
        expected=f"a share that leaves a row of each kind in train.batch_size {rows}, or 0 or 1",
    )


def _check_steps(config: Config) -> None:
    optimizer = config.optimizer
    # A phase may have another warmup, and a schedule of another length is checked with it.
    has_steps = not (config.phases or optimizer.warmup_tokens or optimizer.schedule_steps)
    check(
        not has_steps or optimizer.warmup_steps <= config.train.steps,
        where="optimizer.warmup_steps",
        found=optimizer.warmup_steps,
        expected=f"at most train.steps ({config.train.steps})",
    )
    last = max(config.optimizer.restarts, default=0)
    check(
        not last or last + config.optimizer.warmup_steps < config.train.steps,
        where="optimizer.restarts",
        found=last,
        expected="less than train.steps - optimizer.warmup_steps"
        f" ({config.train.steps - config.optimizer.warmup_steps})",
    )


def _check_mesh(config: Config) -> None:
    check(
        # The kernels take whole rows.
        config.mesh.sequence == 1 or config.model.kernels == "xla",
        where="mesh.sequence",
        found=config.mesh.sequence,
        expected="1, for model.kernels pallas",
    )


def _check_family(config: Config) -> None:
    name = config.model.exported_as
    check(
        not name or name in FAMILIES,
        where="model.exported_as",
        found=excerpt(name),
        expected=f"one of {', '.join(FAMILIES)}{nearest(name, FAMILIES)}",
    )
