"""Attacks on the promises: nothing lost, nothing wrong, mistakes in one line, nobody waits.

    python benchmarks/attack.py [--kinds kill pair ...] [--work FOLDER] [--ledger FILE]
    python benchmarks/attack.py --table LEDGER [LEDGER_AFTER] [--by-verb]

Verbs are killed, started twice, and given full disks, flipped bits, damaged files and command lines
that are drawn. Each attack is a line of the ledger; what is in the ledger is not tried again, so
the script may be stopped at any time. `--minutes` stops it. With `--table` it prints the table of a
ledger, or of two side by side. The bertjax that is attacked is the one that Python imports: put
another checkout first in PYTHONPATH to attack that.

In a new folder everything that is attacked is made first, by the verbs. That and each attack take
seconds; JAX_COMPILATION_CACHE_DIR spares compiling in each process. A full disk needs root: it is a
small tmpfs.
"""

# ruff: noqa: E402

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# Before anything imports jax: the attacks are the same on every device.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Orbax says that it takes the sharding from its file, which is what is wanted.
warnings.filterwarnings("ignore", message="Sharding info not provided")

from attacks import command_lines, damage, flips, full_disk, kills, ledger, pairs, workplace
from attacks.ledger import Ledger
from attacks.result import ENDED_WELL, TRACEBACK, Attack, Result
from reporting import argument_parser

KINDS: dict[str, ModuleType] = {
    module.KIND: module for module in (kills, pairs, full_disk, flips, damage, command_lines)
}
IN_PROCESS = {flips.KIND, damage.KIND, command_lines.KIND}
"""Kinds whose attacks all run in one process, a child of this script, which an attack may end."""
NEXT = "attack-begun"
"""Name of the file that tells which attack a process has begun."""


def main() -> None:
    arguments = parser().parse_args()
    if arguments.table:
        ledgers = [ledger.read(path) for path in arguments.table]
        ledger.print_table(ledgers, by_verb=arguments.by_verb)
        return
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        place = workplace.make(work)
        tried = Ledger(arguments.ledger.resolve())
        for kind in arguments.kinds:
            attacks = list(planned(kind, arguments))
            if kind in IN_PROCESS and not arguments.child:
                in_child(kind, attacks, work, tried.path, begin + 60 * arguments.minutes)
                continue
            for attack in tried.left(attacks):
                if time.monotonic() > begin + 60 * arguments.minutes:
                    break
                (work / NEXT).write_text(attack.key)
                result = KINDS[kind].attempt(place, attack)
                if result.verdict == ENDED_WELL:
                    # Other outputs stay, for whoever looks for the cause.
                    workplace.remove_output(place, attack.key)
                tried.add(attack, result)
                say(attack, result)
        if not arguments.child:
            ledger.print_table([ledger.read(tried.path) if tried.path.exists() else []])


def parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--work", type=Path, help="folder to work in; by default a temporary one")
    parser.add_argument("--ledger", type=Path, default=Path("runs/attack.jsonl"))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=20, help="of prepare, and of train")
    parser.add_argument("--other-pairs", type=int, default=3, help="of each other verb")
    parser.add_argument(
        "--levels",
        type=int,
        default=10,
        help="sizes of a disk, for each of train, prepare and export",
    )
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--damages", type=int, default=200)
    parser.add_argument("--command-lines", type=int, default=1000)
    parser.add_argument("--table", nargs="+", type=Path, metavar="LEDGER")
    parser.add_argument("--by-verb", action="store_true", help="a row for each verb, kind of file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def planned(kind: str, arguments: argparse.Namespace) -> Iterator[Attack]:
    """Return all attacks of a kind."""
    counts = {
        kills.KIND: (arguments.kills,),
        pairs.KIND: (arguments.pairs, arguments.other_pairs),
        full_disk.KIND: (arguments.levels,),
        flips.KIND: (arguments.flips,),
        damage.KIND: (arguments.damages,),
        command_lines.KIND: (arguments.command_lines,),
    }
    return KINDS[kind].attacks(*counts[kind])


def in_child(kind: str, attacks: list[Attack], work: Path, path: Path, until: float) -> None:
    """Try attacks in a process of their own; if it is ended by one, in another."""
    while True:
        left = Ledger(path).left(attacks)
        minutes = (until - time.monotonic()) / 60
        if not left or minutes <= 0:
            return
        begun = work / NEXT
        begun.unlink(missing_ok=True)
        words = [sys.executable, __file__, "--child", "--kinds", kind, "--work", str(work)]
        words += ["--ledger", str(path), "--minutes", str(minutes)]
        # Numbers of attacks are all that a kind's own options say.
        words += counts_of(kind, attacks)
        run = subprocess.run(words, check=False, stderr=subprocess.PIPE, text=True)
        if run.returncode == 0:
            continue
        last = begun.read_text() if begun.exists() else ""
        ended = [attack for attack in left if attack.key == last]
        # Python's own status for an exception: one of these scripts, as verbs' are caught.
        if not ended or run.returncode == 1:
            raise SystemExit(run.stderr)
        lines = run.stderr.strip().splitlines() or [""]
        told = f"the process ended with status {run.returncode}: {lines[-1][:200]}"
        result = Result(TRACEBACK, told)
        Ledger(path).add(ended[0], result)
        say(ended[0], result)


def say(attack: Attack, result: Result) -> None:
    # File names that are drawn may hold what no encoding has.
    told = result.happened.encode("ascii", "backslashreplace").decode()
    print(f"{attack.key}: {result.verdict}: {told}", flush=True)


def counts_of(kind: str, attacks: list[Attack]) -> list[str]:
    """Return the options with which a child plans the same attacks."""
    option = {
        flips.KIND: "--flips",
        damage.KIND: "--damages",
        command_lines.KIND: "--command-lines",
    }[kind]
    return [option, str(len(attacks))]


if __name__ == "__main__":
    main()
