import subprocess
import sys

import pytest

CODE = """
import sys
from bertjax.cli import process_title
process_title.hide_passwords()
print(open("/proc/self/cmdline").read().split("\\0")[3:-1])
print(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_other_processes_see_no_password_of_a_database_and_this_one_keeps_it():
    words = [
        "prepare", "--data.corpus", "a b.txt", "sql:postgresql://u:sécret@h/d?query=SELECT text FROM t WHERE a = 'x=sql:y'",
        "--data.corpus=sql:postgresql://u@h/d?password=secret&table=t", "postgresql://u:secret@h", "--output-dir", "ö",
    ]  # fmt: skip
    run = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    shown, own = (eval(line) for line in run.stdout.splitlines())
    assert own == words
    assert [word.rstrip() for word in shown] == [
        "prepare", "--data.corpus", "a b.txt", "sql:postgresql://u@h/d?query=SELECT text FROM t WHERE a = 'x=sql:y'",
        "--data.corpus=sql:postgresql://u@h/d?table=t", "postgresql://u@h", "--output-dir", "ö",
    ]  # fmt: skip
