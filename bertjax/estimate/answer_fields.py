"""File name and memory fields of an answer of `bertjax compile`, for those who only read it."""

FILE = "compile.json"
MEMORY = {
    "parameters": "parameters",
    "optimizer": "optimizer",
    "batch": "batch",
    "activations": "activations and temporaries",
    "code": "program",
    "padding": "padding and outputs",
}
"""Labels of the parts of `memory.Memory`, by their fields."""
