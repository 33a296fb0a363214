"""`bertjax completion SHELL`"""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from bertjax.config import preset_names
from bertjax.errors import UserError, nearest

SHELLS = ("bash", "zsh", "fish")
CONFIGURED = ("prepare", "train", "finetune", "compile")  # verbs that begin with a configuration

# tyro's functions complete verbs and options; these complete presets, and leave the rest to them.
BASH = """
_bertjax() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  case "$COMP_CWORD ${{COMP_WORDS[1]}}" in
    {patterns}) ;;
    *) _tyro_bertjax; return ;;
  esac
  if [[ "$word" == -* ]]; then
    _tyro_bertjax
    return
  fi
  COMPREPLY=($(compgen -W "{presets}" -- "$word") $(compgen -f -- "$word"))
}}
complete -F _bertjax bertjax
"""
ZSH = """
_bertjax() {{
  case "$CURRENT ${{words[2]}}" in
    {patterns})
      if [[ "${{words[CURRENT]}}" != -* ]]; then
        compadd {presets}
        _files
        return
      fi ;;
  esac
  _tyro_bertjax "$@"
}}
compdef _bertjax bertjax
"""
FISH = """
complete -c bertjax -n '__fish_seen_subcommand_from {verbs}' -n '__fish_is_nth_token 2' \\
  -F -a '{presets}'
"""

HELP = f"""usage: bertjax completion SHELL

Print a script by which a shell completes verbs, presets and options. SHELL is one of
{", ".join(SHELLS)}. In bash, for one session: source <(bertjax completion bash)
"""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    if "-h" in words or "--help" in words:
        print(HELP, end="")
        return 0
    shell = words[0] if len(words) == 1 else ""
    if shell not in SHELLS:
        given = " ".join(words) or "nothing"
        raise UserError(
            f"bertjax completion: found {given}, expected one of {', '.join(SHELLS)}"
            f"{nearest(given, SHELLS)}"
        )
    print(completion_script(shell))
    return 0


def completion_script(shell: str) -> str:
    """Return the completion script for `bash`, `zsh` or `fish`."""
    presets = " ".join(preset_names())
    script = _options_script(shell)
    if shell == "fish":
        return script + FISH.format(verbs=" ".join(CONFIGURED), presets=presets)
    if shell == "bash":  # numbers words from 0, and zsh from 1
        patterns = "|".join(f'"2 {verb}"' for verb in CONFIGURED)
        return script + BASH.format(patterns=patterns, presets=presets)
    patterns = "|".join(f'"3 {verb}"' for verb in CONFIGURED)
    # tyro's script ends with a call of its function, for a file that zsh loads by itself.
    script = script.rsplit("typeset -A opt_args", 1)[0]
    return script + ZSH.format(patterns=patterns, presets=presets)


def _options_script(shell: str) -> str:
    """Return tyro's script for all verbs and their options."""
    script = io.StringIO()
    try:
        with contextlib.redirect_stdout(script):
            tyro.cli(
                _commands(),
                args=["--tyro-print-completion", shell],
                prog="bertjax",
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise
    # tyro has one candidate a line, and takes a description's further lines for candidates.
    return re.sub(r"(?m)^.*COMPLETION_SPEC = .*$", _on_one_line, script.getvalue())


def _on_one_line(match: re.Match[str]) -> str:
    """Return the matched text with a space for each newline that is written as an escape."""
    return re.sub(r"\\+n\s*", " ", match[0])


def _commands() -> Any:
    """Return the union of all verbs' commands, as tyro wants its subcommands."""
    # These modules import this one's siblings only when a shell asks for its script.
    from bertjax.cli.main import VERBS, verb_module

    commands = []
    for verb in VERBS:
        if verb != "completion":
            command = command_of(verb_module(verb))
            commands.append(Annotated[command, tyro.conf.subcommand(name=verb, prefix_name=False)])
    return Union[tuple(commands)]


def command_of(module: Any) -> type:
    """Return the class of a verb's options: the one in its module whose name ends with Command."""
    for name, value in vars(module).items():
        if name.endswith("Command"):
            return value
    raise LookupError(f"{module.__name__} has no command")
