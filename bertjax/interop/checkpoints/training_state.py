"""Variables of a TensorFlow checkpoint that belong to the training and not to the model.

A program that trains saves all its variables in one checkpoint. Optimizers name theirs freely, so
no list of names is complete. What tells them apart is where they stand: TensorFlow creates a slot
under the variable that it belongs to (`slot_creator.py` of TensorFlow), as `X/Adam`, `X/lamb_m`,
`X/ExponentialMovingAverage`.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

MAX_PARTS = 20  # of a name; the search below takes the square of their number
# Parts of names under a variable that change what the model computes: masks of pruned weights
# (tf.contrib.model_pruning), and updates of low rank (arXiv 2106.09685).
NO_SLOTS = ("mask", "lora")
# What optimizers and averages call their slots, or a part of it. The model of a program of one's
# own may compute with a variable of another name, as with `u` of a spectral norm.
KNOWN_SLOT = re.compile(
    r"adam|lamb|lars|adagrad|adadelta|adafactor|adabelief|momentum|moment|rmsprop|ftrl|yogi|novo|sm3"
    r"|shampoo|lion|sgd|nesterov|average|avg|biased|local_step|accum|shadow|slow|velocity|square"
    r"|(^|[/_])(ema|m|v|vr|vc|ms|mom|mg|rms)([/_]|$)",
    re.IGNORECASE,
)
TYPES_WITHOUT_NUMBERS = ("string", "variant", "resource")


class Variable(NamedTuple):
    """A variable, as the index of a checkpoint describes it."""

    shape: tuple[int, ...]
    type: str
    """TensorFlow's name of the type, such as `float32`."""


def training_state(
    variables: Mapping[str, Variable], model_scopes: Collection[str]
) -> dict[str, str]:
    """Return the names of the training's variables, each with what it is called in a message.

    They are: a variable under a variable, with the shape of that variable or with some of its axes
    (1 or left out), in a scope of its own or not; what holds no numbers; counters, which are single
    integers or booleans; and single numbers outside `model_scopes`, such as `beta1_power` and
    `loss_scale`. `model_scopes` are the first parts of the model's names.
    """
    state: dict[str, str] = {}
    for name, variable in variables.items():
        ending = _slot_ending(name, variable, variables)
        if ending:
            state[name] = f"X/{ending}"
        elif _is_no_weight(name, variable, model_scopes):
            state[name] = name
    return state


def unknown_slots(state: Mapping[str, str]) -> list[str]:
    """Return those of `training_state` that no known optimizer has, by what messages call them."""
    endings = [kind for kind in state.values() if kind.startswith("X/")]
    return [kind for kind in endings if not KNOWN_SLOT.search(kind.removeprefix("X/"))]


def _slot_ending(name: str, variable: Variable, variables: Mapping[str, Variable]) -> str:
    """Return the part of a slot's name after its variable's; empty for what is no slot."""
    parts = name.split("/")
    if len(parts) > MAX_PARTS:
        return ""
    for begin in range(len(parts)):
        # The longest name first: an average may have a counter of its own under it.
        for end in range(len(parts) - 1, begin, -1):
            parent = variables.get("/".join(parts[begin:end]))
            ending = "/".join(parts[end:])
            if parent and _has_its_axes(variable.shape, parent.shape) and _is_slot_name(ending):
                return ending
    return ""


def _is_slot_name(ending: str) -> bool:
    return not any(part in ending.lower() for part in NO_SLOTS)


def _has_its_axes(shape: Sequence[int], parent: Sequence[int]) -> bool:
    """Return whether `shape` is `parent` with some axes, or none, left out or of size 1.

    Most slots have the shape of their variable. Adafactor keeps a row and a column (arXiv
    1804.04235), an average a number of steps.
    """
    left = list(shape)
    for size in parent:
        if left and left[0] in (size, 1):
            left.pop(0)
    return not left


def _is_no_weight(name: str, variable: Variable, model_scopes: Collection[str]) -> bool:
    if variable.type in TYPES_WITHOUT_NUMBERS:
        return True
    single = all(size == 1 for size in variable.shape)
    if not single:
        return False
    counts = variable.type == "bool" or "int" in variable.type
    return counts or (variable.shape == () and name.partition("/")[0] not in model_scopes)
