#!/usr/bin/env bash
# Builds the API reference, HTML pages of the docstrings, into build/api.
#
#   bash launch/docs.sh
#
# Ends with an error if a module of the package cannot be imported, or a name of `__all__` is not there.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/env.sh
bertjax_environment requirements-dev.txt

# Otherwise JAX and TensorFlow would look for accelerators when they are imported.
export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3
rm -rf build/api
python - << 'END'
import pkgutil
import warnings
from pathlib import Path

import bertjax
import pdoc

# pdoc reads a module's dictionary, where names that load on first use are not yet.
for name in bertjax.__all__:
    vars(bertjax)[name] = getattr(bertjax, name)

# It documents the modules of a package with an `__all__` only if they are named. Those of other
# packages it finds by itself, and warns that they are named twice. It also warns of a named tuple
# with a field of its own type. Other warnings are errors: a module that cannot be imported is one.
warnings.simplefilter("error", UserWarning)
warnings.filterwarnings("ignore", message="The module specification .* has already been added")
warnings.filterwarnings("ignore", message="(?s)Error parsing type annotation")
modules = [module.name for module in pkgutil.walk_packages(bertjax.__path__, "bertjax.")]
pdoc.pdoc("bertjax", *modules, output_directory=Path("build/api"))
END
echo "API reference: build/api/index.html"
