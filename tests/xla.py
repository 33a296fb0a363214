"""How the XLA of the installed jaxlib is asked for programs without its fusion emitters, and with
them.
"""

import re
from importlib.metadata import version

# jaxlib 0.11.1 dropped the flag, and XLA ends a process that gives it one it does not know.
_HAS_FLAG = [int(number) for number in re.findall(r"\d+", version("jaxlib"))[:3]] < [0, 11, 1]

# In XLA_FLAGS: two fifths less to compile.
WITHOUT_FUSION_EMITTERS = "--xla_cpu_use_fusion_emitters=false" if _HAS_FLAG else ""

# As compiler_options: what users have, where XLA_FLAGS says otherwise.
WITH_FUSION_EMITTERS = {"xla_cpu_use_fusion_emitters": True} if _HAS_FLAG else {}
