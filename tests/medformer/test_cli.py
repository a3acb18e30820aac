from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import medformer
from data_shards.support.errors import DataError
from medformer import cli, health
from medformer.extras import EXTRA_OF

HEAVY = {"torch", "timm", "numpy", "ray", "mlflow", "deepspeed", "pydantic", "matplotlib", "medmnist"}


def medformer_command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "medformer", *words], capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom medformer import cli\nprint(cli.build_parser().format_help())\n"
        f"print({HEAVY} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")
    assert all(re.search(rf"\n    {name}\s", done.stdout) for name in cli.COMMANDS)


def test_help_answers_at_once() -> None:
    took = []
    for _ in range(3):
        start = time.perf_counter()
        assert medformer_command("--help").returncode == 0
        took.append(time.perf_counter() - start)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    assert min(took) - (time.perf_counter() - start) < 0.3


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_the_help_of_a_command_does_not_load_torch(name: str) -> None:
    script = (
        "import sys\nfrom medformer.cli import main\n"
        f"try:\n    main([{name!r}, '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported for help'\n"
        "assert 'ray' not in sys.modules and 'mlflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: medformer {name}" in done.stdout


def test_the_version_is_that_of_the_package() -> None:
    assert medformer_command("--version").stdout == f"medformer {medformer.__version__}\n"


def test_an_unknown_command_names_the_nearest_and_exits_with_2() -> None:
    done = medformer_command("finetun")
    assert done.returncode == 2
    assert done.stderr == "medformer: error: unknown command 'finetun'; did you mean 'finetune'?\n"
    assert done.stdout == ""


def test_no_command_prints_help_and_exits_with_2() -> None:
    done = medformer_command()
    assert done.returncode == 2
    assert done.stdout.startswith("usage: medformer")


@pytest.mark.parametrize(
    "words",
    [
        ["seed=1", "schedule.epochs=2", "--resume"],
        ["--resume", "seed=1", "schedule.epochs=2"],
        ["seed=1", "--resume", "schedule.epochs=2"],
    ],
)
def test_overrides_stand_before_between_and_behind_options(words: list[str]) -> None:
    arguments = cli.parse_words(["pretrain", "run.yaml", *words])
    assert arguments.resume
    assert arguments.overrides == ["seed=1", "schedule.epochs=2"]


def test_overrides_of_the_demonstration_stand_around_its_options() -> None:
    arguments = cli.parse_words(["demo", "log_every_steps=5", "--seed", "1", "schedule.epochs=1"])
    assert (arguments.seed, arguments.overrides) == (1, ["log_every_steps=5", "schedule.epochs=1"])


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["pretrain", "run.yaml", "--resume", "--seed=1"], "--seed=1"),
        (["pretrain", "run.yaml", "--resme", "seed=1"], "--resme"),
        (["pretrain", "run.yaml", "--resume", "seed"], "seed"),
        (["pretrain", "run.yaml", "--resume", "=1"], "=1"),
        (["doctor", "--json", "seed=1"], "seed=1"),
    ],
)
def test_what_is_neither_an_option_nor_an_override_is_refused(
    words: list[str], refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith(f"medformer: error: unrecognized arguments: {refused}\n")


def parsers_below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers_below(inner)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_no_command_takes_an_abbreviated_option(name: str) -> None:
    checked = 0
    for parser in parsers_below(cli.build_parser(name)):
        known = {option for action in parser._actions for option in action.option_strings}
        for action in parser._actions:
            action.required = False  # so that nothing but the abbreviation can be refused
        for short in {option[:-1] for option in known if option.startswith("--")} - known - {"--"}:
            assert parser.parse_known_args([short])[1] == [short], f"{parser.prog} takes {short}"
            checked += 1
    assert checked > 0


def test_an_abbreviation_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["pretrain", "run.yaml", "--resum"])
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith("medformer: error: unrecognized arguments: --resum\n")


def raising(error: BaseException) -> object:
    class Command:
        @staticmethod
        def register(subparsers) -> None:
            def run(_: object) -> int:
                raise error

            subparsers.add_parser("doctor").set_defaults(run=run)

    return Command


@pytest.fixture
def doctor_raises(monkeypatch: pytest.MonkeyPatch):
    def prepare(error: BaseException) -> None:
        monkeypatch.setitem(sys.modules, "medformer.commands.doctor", raising(error))

    return prepare


def test_an_error_for_the_user_is_one_line_without_traceback(doctor_raises, capsys: pytest.CaptureFixture[str]) -> None:
    doctor_raises(DataError("a.npz: MD5 is x, expected y"))
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "medformer: error: a.npz: MD5 is x, expected y\n"


def test_ctrl_c_exits_with_130(doctor_raises, capsys: pytest.CaptureFixture[str]) -> None:
    doctor_raises(KeyboardInterrupt())
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "medformer: interrupted\n"


def test_a_missing_extra_is_named_with_its_remedy(doctor_raises, capsys: pytest.CaptureFixture[str]) -> None:
    doctor_raises(ModuleNotFoundError("No module named 'mlflow.tracking'", name="mlflow.tracking"))
    assert cli.main(["doctor"]) == 2
    assert "pip install 'medformer[registry]'" in capsys.readouterr().err


def test_a_programming_error_keeps_its_traceback(doctor_raises) -> None:
    doctor_raises(ModuleNotFoundError("No module named 'nonsense'", name="nonsense"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["doctor"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = (
        "import sys\nfrom types import SimpleNamespace\nfrom medformer import cli\n"
        "def register(parsers): parsers.add_parser('doctor').set_defaults(run=lambda _: print('x' * 10**6) or 0)\n"
        "sys.modules['medformer.commands.doctor'] = SimpleNamespace(register=register)\n"
        "sys.exit(cli.main(['doctor']))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == cli.EXIT_BROKEN_PIPE
    assert done.stderr == ""


def test_doctor_reports_every_extra_and_a_working_core() -> None:
    done = medformer_command("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert report["healthy"] is True
    names = {finding["name"] for finding in report["findings"]}
    assert names >= {"python", "torch", "gloo", "model store", "disk", "shared memory", *EXTRA_OF}
    absent = [
        finding for finding in report["findings"] if finding["state"] == "missing" and finding["name"] in EXTRA_OF
    ]
    assert all("pip install 'medformer[" in finding["remedy"] for finding in absent)


def test_doctor_says_what_is_broken_and_exits_with_1(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A torch that cannot be imported stands before the real one.
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = medformer_command("doctor")
    assert done.returncode == 1
    assert "broken" in done.stdout
    assert "libcudart.so.99" in done.stdout


def test_a_thorough_examination_finds_what_is_there_and_does_not_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.py").write_text("raise ImportError('no module named alembic')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(health, "_version", lambda distribution: "3.17.2")
    looked_up, tried = (health._optional_package("mlflow", thorough) for thorough in (False, True))
    assert (looked_up.state, looked_up.detail) == ("ok", "3.17.2")
    assert (
        tried.state == "warning" and "no module named alembic" in tried.detail and "medformer[registry]" in tried.remedy
    )


def test_type_checkers_see_every_public_name_at_its_home() -> None:
    tree = ast.parse(Path(str(medformer.__file__)).read_text())
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(seen.test) == "TYPE_CHECKING"
    homes = {each.name: node.module for node in seen.body if isinstance(node, ast.ImportFrom) for each in node.names}
    assert homes == medformer._HOMES and set(medformer.__all__) == {*homes, "__version__"}
    for package in ("medformer", "cluster", "finetune", "pretrain", "data_shards"):
        assert Path(str(import_module(package).__file__)).with_name("py.typed").is_file()


def test_importing_the_public_api_loads_nothing_until_a_name_is_used() -> None:
    script = f"import sys, medformer\nassert not {HEAVY} & set(sys.modules)\nprint(sorted(dir(medformer)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "FewLabelClassifier" in done.stdout


@pytest.mark.parametrize("name", sorted(medformer._HOMES))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(medformer, name) is getattr(import_module(medformer._HOMES[name]), name)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        medformer.nonsense  # noqa: B018
