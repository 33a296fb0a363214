"""`bertjax completion SHELL`"""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union

import tyro

from bertjax.cli.arguments import parse_subject
from bertjax.config import preset_names
from bertjax.errors import check

SHELLS = ("bash", "zsh", "fish")
CONFIGURED = (
    "prepare",
    "train",
    "finetune",
    "distill",
    "compile",
)  # verbs that begin with a configuration

# tyro's functions complete verbs and options. These scripts also complete the names of
# configurations and shells, which are arbitrary text for tyro.
BASH = """
_bertjax() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [[ "$word" != -* && $COMP_CWORD == 2 ]]; then
    case "${{COMP_WORDS[1]}}" in
      {configured})
        COMPREPLY=($(compgen -W "{presets}" -- "$word") $(compgen -f -- "$word"))
        return ;;
      completion) COMPREPLY=($(compgen -W "{shells}" -- "$word")); return ;;
    esac
  fi
  _tyro_bertjax
}}
complete -F _bertjax bertjax
"""
ZSH = """
_bertjax() {{
  if [[ "${{words[CURRENT]}}" != -* && $CURRENT == 3 ]]; then
    case "${{words[2]}}" in
      {configured}) compadd {presets}; _files; return ;;
      completion) compadd {shells}; return ;;
    esac
  fi
  _tyro_bertjax "$@"
}}
compdef _bertjax bertjax
"""
FISH = """
set -l third_word '__fish_is_nth_token 2'
complete -c bertjax -n '__fish_seen_subcommand_from {configured}' -n "$third_word" -F -a '{presets}'
complete -c bertjax -n '__fish_seen_subcommand_from completion' -n "$third_word" -a '{shells}'
"""


@dataclass(frozen=True)
class CompletionCommand:
    """Print a shell script that completes verbs, presets and options.

    SHELL is bash, zsh or fish. In bash, for one session: source <(bertjax completion bash)
    """


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    expected = f"one of {', '.join(SHELLS)}"
    shell, _ = parse_subject("completion", CompletionCommand(), words, expected, "SHELL")
    check(shell in SHELLS, where="bertjax completion", found=shell, expected=expected)
    print(completion_script(shell))
    return 0


def completion_script(shell: str) -> str:
    """Return the completion script for `bash`, `zsh` or `fish`."""
    template, separator = {"bash": (BASH, "|"), "zsh": (ZSH, "|"), "fish": (FISH, " ")}[shell]
    script = _options_script(shell)
    if shell == "zsh":
        # tyro's script ends with a call of its function, which is for files that zsh autoloads.
        script, _, _ = script.rpartition("typeset -A opt_args")
    return script + template.format(
        configured=separator.join(CONFIGURED),
        presets=" ".join(preset_names()),
        shells=" ".join(SHELLS),
    )


def _options_script(shell: str) -> str:
    """Return tyro's script for all verbs and their options."""
    script = io.StringIO()
    try:
        with contextlib.redirect_stdout(script):
            tyro.cli(
                _commands(),
                args=["--tyro-print-completion", shell],
                prog="bertjax",
                # As `arguments.parse` reads the options.
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise
    # tyro prints each candidate with its description. If a description has several lines, tyro
    # treats the other lines as candidates.
    return re.sub(r"(?m)^.*COMPLETION_SPEC = .*$", _on_one_line, script.getvalue())


def _on_one_line(match: re.Match[str]) -> str:
    """Return the matched text with a space for each newline that is written as an escape."""
    return re.sub(r"\\+n\s*", " ", match[0])


def _commands() -> Any:
    """Return the union of all verbs' commands, as tyro wants its subcommands."""
    # Imported here, because only this script needs the modules of all verbs.
    from bertjax.cli.main import VERBS, verb_module

    commands = []
    for verb in VERBS:
        command = all_options_of(verb_module(verb))
        commands.append(Annotated[command, tyro.conf.subcommand(name=verb, prefix_name=False)])
    return Union[tuple(commands)]  # noqa: UP007 (there are as many members as verbs)


def all_options_of(module: Any) -> type:
    """Return the class of a verb's options, with those of its other form, if it has one."""
    command, other = command_of(module), getattr(module, "OTHER_FORM", None)
    if other is None:
        return command
    both: type = type(command.__name__, (command, other), {"__doc__": command.__doc__})
    return dataclass(frozen=True)(both)


def command_of(module: Any) -> type:
    """Return the class of a verb's options: the one in its module whose name ends with Command."""
    for name, value in vars(module).items():
        if name.endswith("Command"):
            return value
    raise LookupError(f"{module.__name__} has no command")
