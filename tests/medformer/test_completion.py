"""Shells complete commands, options, choices and files, without starting Python for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("shtab")

from medformer.cli import COMMANDS, main


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``medformer completion bash`` prints."""
    code = (
        "import sys\nfrom medformer.cli import main\nstatus = main(['completion', 'bash'])\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    file = tmp_path_factory.mktemp("completion") / "medformer.bash"
    file.write_text(done.stdout)
    return file


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    code = (
        f'source "{script}"\nCOMP_WORDS=("$@")\nCOMP_CWORD=$(($# - 1))\n'
        "$(complete -p medformer | sed 's/.*-F \\([^ ]*\\).*/\\1/')\nprintf '%s\\n' \"${COMPREPLY[@]}\""
    )
    command = ["bash", "-c", code, "bash", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=script.parent)
    return done.stdout.split()


def test_commands_are_completed(script: Path) -> None:
    assert set(COMMANDS) <= set(completed(script, "medformer", ""))
    assert completed(script, "medformer", "fine") == ["finetune"]
    assert completed(script, "medformer", "models", "pro") == ["promote"]


def test_options_choices_and_files_are_completed(script: Path) -> None:
    assert "--per-class" in completed(script, "medformer", "finetune", "--per")
    assert completed(script, "medformer", "finetune", "--on-error", "s") == ["stop", "skip"]
    (script.parent / "labels.csv").write_text("")
    assert completed(script, "medformer", "finetune", "--csv", "lab") == ["labels.csv"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_the_scripts_of_other_shells_name_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0
