"""One run's whole configuration."""

from dataclasses import dataclass, field

from bertjax.config.data import DataConfig, TokenizerConfig
from bertjax.config.finetune import FinetuneConfig
from bertjax.config.model import Head, ModelConfig
from bertjax.config.training import MeshConfig, OptimizerConfig, TrainConfig
from bertjax.errors import check


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: its data, model, optimizer, loop and mesh."""

    seed: int = 0
    """Seed of everything random: parameters, data order, masks, dropout."""
    init_from: str = ""
    """A run or checkpoint folder whose parameters start this run (step and optimizer start anew)."""
    model_from_init: bool = False
    """Take `model` and the tokenizer from `init_from` too; what this file says of them does not
    count then.
    """
    new_heads: tuple[Head, ...] = ()
    """Heads of `model` that start at random, `init_from` having none, or another to be forgotten."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """Ids in the rows of a batch: the longest last, before it the shorter ones that a task's
        rows may have.
        """
        if not self.finetune.tasks:
            return (self.data.max_seq_length,)
        longest = self.finetune.max_seq_length
        return (*(length for length in self.finetune.length_buckets if length < longest), longest)

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**32, where="seed", found=self.seed, expected="0 to 2**32 - 1")
        check(
            set(self.new_heads) <= set(self.model.heads),
            where="new_heads",
            found=self.new_heads,
            expected="heads that are in model.heads",
        )
        check(
            self.data.max_seq_length <= self.model.max_length,
            where="data.max_seq_length",
            found=self.data.max_seq_length,
            expected="at most model.max_position_embeddings"
            f"{' - model.position_offset' if self.model.position_offset else ''} ({self.model.max_length})",
        )
        check(
            not self.finetune.tasks or self.finetune.max_seq_length <= self.model.max_length,
            where="finetune.max_seq_length",
            found=self.finetune.max_seq_length,
            expected=f"at most the model's positions ({self.model.max_length})",
        )
        check(
            not self.finetune.tasks or self.train.batch_size_schedule == "constant",
            where="train.batch_size_schedule",
            found=self.train.batch_size_schedule,
            expected="constant, for fine-tuning: its batches are of several lengths",
        )
        check(
            not self.finetune.decoder_from or bool(self.init_from),
            where="finetune.decoder_from",
            found=self.finetune.decoder_from,
            expected="init_from beside it, for the encoder",
        )
        random = self.finetune.reinit_layers > 0 or self.finetune.reinit_pooler
        check(
            not random or self.optimizer.freeze != "encoder",
            where="optimizer.freeze",
            found=self.optimizer.freeze,
            expected="another value beside finetune.reinit_layers: what is random must be trained",
        )
        for name, layers in (
            ("finetune.reinit_layers", self.finetune.reinit_layers),
            ("optimizer.freeze_layers", self.optimizer.freeze_layers),
        ):
            stack = 1 if self.model.share_layers else self.model.num_hidden_layers
            check(
                layers <= stack,
                where=name,
                found=layers,
                expected=f"at most the model's layers, {stack} with parameters of their own",
            )
        check(
            self.mesh.sequence == 1 or self.model.kernels == "xla",
            where="mesh.sequence",
            found=self.mesh.sequence,
            expected="1, for model.kernels pallas",
        )
        check(
            self.optimizer.warmup_steps <= self.train.steps,
            where="optimizer.warmup_steps",
            found=self.optimizer.warmup_steps,
            expected=f"at most train.steps ({self.train.steps})",
        )
