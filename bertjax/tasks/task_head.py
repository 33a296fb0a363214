"""The description of a task's linear head, for exports to other programs."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TaskHead:
    """A linear head: what its outputs are, and which class of `transformers` has the same one."""

    task: str
    """The name of the task."""
    kind: str
    """The name of the kind of task."""
    labels: tuple[str, ...]
    """The label of each output; empty where the output is one number."""
    transformers_class: str
    """The class without its model: SequenceClassification of BertForSequenceClassification."""
    label_type: str = "class"
    """class (softmax over the outputs), classes (a sigmoid each) or number."""
    on_tokens: bool = False
    """True if it is applied to every token's hidden state, else to the sentence vector."""
    problem_type: str = ""
    """The `problem_type` of `transformers`' config.json; empty: none is written."""

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return len(self.labels) or 1

    def to_dict(self) -> dict[str, Any]:
        """Return what `task.json`, beside an exported program, says of the logits."""
        return {
            "task": self.task,
            "kind": self.kind,
            "labels": list(self.labels),
            "label_type": self.label_type,
        }
