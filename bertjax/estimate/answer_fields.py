"""What an answer of `bertjax compile` is made of, for those who only read it."""

FILE = "compile.json"
MEMORY = {
    "parameters": "parameters",
    "optimizer": "optimizer",
    "batch": "batch",
    "activations": "activations and temporaries",
    "code": "program",
    "padding": "padding and outputs",
}
"""The parts of `memory.Memory`, by their fields, in words."""
