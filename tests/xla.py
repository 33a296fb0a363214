"""Flags for the XLA of the installed jaxlib."""

import re
from importlib.metadata import version

# jaxlib 0.11.1 dropped the flag of the fusion emitters, and XLA ends a process that is given a flag
# that it does not know.
_BEFORE_0_11_1 = [int(n) for n in re.findall(r"\d+", version("jaxlib"))[:3]] < [0, 11, 1]

# In XLA_FLAGS: compiling takes two fifths less.
WITHOUT_FUSION_EMITTERS = "--xla_cpu_use_fusion_emitters=false" if _BEFORE_0_11_1 else ""

# As compiler_options: the emitters that users have, where XLA_FLAGS says otherwise.
WITH_FUSION_EMITTERS = {"xla_cpu_use_fusion_emitters": True} if _BEFORE_0_11_1 else {}

# In XLA_FLAGS: XLA ends a process in which a collective waits 40 s for one of its devices. On a
# busy machine the threads of eight devices may take longer.
LONG_WAITS = "--xla_cpu_collective_call_terminate_timeout_seconds=600" if _BEFORE_0_11_1 else ""
