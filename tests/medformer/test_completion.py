"""Shells complete commands, options, choices and files, without starting Python for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

pytest.importorskip("shtab")

from data_shards.vocabulary import Task
from finetune.alignment import ALIGNMENTS
from finetune.config import EmbedConfig, FinetuneConfig
from finetune.explain.methods import METHODS
from finetune.heads import HEADS
from finetune.shift.corruptions import CORRUPTIONS
from finetune.strategies import STRATEGIES
from medformer.cli import COMMANDS, main
from medformer.commands.completion import NAMES
from medformer.commands.data_options import TASKS


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


@pytest.mark.parametrize(
    "words, offered",
    [
        (("finetune", "--organ", "br"), ["brain", "breast"]),
        (("finetune", "--modality", "ultra"), ["ultrasound"]),
        (("embed", "--task", "multi"), ["multiclass", "multilabel"]),
        (("finetune", "--head", "at"), ["attention"]),
        (("finetune", "--strategy", "two"), ["two_stage"]),
        (("finetune", "--ensemble", "f"), ["folds"]),
        (("evaluate", "--strategies", "frozen", "f"), ["frozen", "full"]),
        (("explain", "--method", "grad"), ["grad_cam"]),
        (("shards", "build", "med"), ["medmnist"]),
        (("shards", "build", "medmnist", "--set", "breast"), ["breastmnist"]),
    ],
)
def test_names_are_completed(script: Path, words: tuple[str, ...], offered: list[str]) -> None:
    assert sorted(completed(script, "medformer", *words)) == offered


def test_the_names_that_are_written_out_are_those_that_are_registered() -> None:
    literal = {name: FinetuneConfig.model_fields[name].annotation for name in ("ensemble",)}
    literal["reads"] = EmbedConfig.model_fields["reads"].annotation
    registered = {"head": HEADS, "strategy": STRATEGIES, "alignment": ALIGNMENTS, "method": METHODS}
    registered["corruptions"] = CORRUPTIONS
    for name, registry in registered.items():
        own = {key for key, part in registry.items() if part.__module__.startswith("finetune.")}
        assert set(NAMES[name]) == own, name
    assert all(NAMES[name] == get_args(annotation) for name, annotation in literal.items())
    assert set(TASKS) < set(Task.__members__)


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_the_scripts_of_other_shells_name_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0
