"""Functions of the model, each as one program.

For shapes that no other test has: operation by operation, each compiles dozens of programs.
"""

import jax

from bertjax.model import functional

init = jax.jit(functional.init, static_argnums=0)
encode = jax.jit(functional.encode, static_argnums=0, static_argnames=("keep_layers", "layout"))
