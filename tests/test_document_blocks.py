"""Every block of the documents is what it looks like: commands and YAML fit the real parsers and typed models.

Python blocks run in ``test_documents.py``; here the commands that are cheap run too, on images made for them.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import nibabel
import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from cluster.jobs.package import check_paths
from cluster.search.document import SearchConfig
from cluster.search.space import with_values
from data_shards.foreign.adopt import AdoptConfig
from data_shards.format.manifest import read_manifest
from data_shards.prepare import Preparation, Storing
from data_shards.sources import base as sources_base
from data_shards.sources.base import source_named
from data_shards.support.documents import apply_overrides, load, parse, read_mapping
from finetune.alignment import ALIGNMENTS
from finetune.config import EmbedConfig, EvaluateConfig, FinetuneConfig, PredictConfig
from finetune.explain.document import ExplainConfig
from finetune.readers import read_cases
from finetune.shift.corruptions import CORRUPTIONS
from finetune.shift.document import RobustnessConfig
from medformer.cli import main, parse_words
from pretrain.brainfuse.training import GeneratorRun
from pretrain.config import PretrainConfig
from pretrain.objectives import OBJECTIVES
from tests.data_shards.sources.adni.export import write_export
from tests.documents import DOCUMENTS, ROOT, Block, all_blocks, command_lines
from tests.finetune.samples import TINY

BLOCKS = [block for path in DOCUMENTS for block in all_blocks(path)]
LANGUAGES = {"sh", "yaml", "toml", "python", "csv", "text"}
MOST_NOT_RUN = 2
SOURCES = ROOT / "docs" / "sources.md"
ADNI = ROOT / "docs" / "howto" / "adni.md"
SHARDS = ROOT / "docs" / "shards.md"
FINETUNING = ROOT / "docs" / "finetuning.md"
REPORT = ROOT / "docs" / "report.md"


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and block.runs]


def yaml_file(path: Path, name: str) -> dict[str, Any]:
    """The YAML block that a document says is the file ``name``."""
    found = [block.code for block in all_blocks(path) if re.match(rf"# {re.escape(name)}\b", block.code)]
    assert len(found) == 1, f"{path.name}: {len(found)} blocks say that they are {name}"
    content = yaml.safe_load(found[0])
    assert isinstance(content, dict)
    return content


# What each program of a command line is checked by.


def medformer(words: list[str], path: Path) -> None:
    words = words[: words.index(">")] if ">" in words else words  # what is printed goes into a file
    try:
        arguments = parse_words(words)
    except SystemExit as end:
        pytest.fail(f"{path.name}: medformer {shlex.join(words)}: exit status {end.code}")
    assert callable(arguments.run)
    check = CHECKS.get(words[0]) or CHECKS.get(" ".join(words[:2]))
    if check is not None:
        check(arguments, path)


def a_build(arguments: argparse.Namespace, path: Path) -> None:
    content = yaml_file(path, arguments.config.name) if arguments.config else {}
    apply_overrides(content, arguments.overrides)
    if arguments.sets:
        content["sets"] = arguments.sets
    parse(Preparation, content.pop("prepare", None) or {}, "prepare")
    parse(Storing, {key: content.pop(key) for key in Storing.model_fields if key in content}, path.name)
    parse(source_named(arguments.source).Config, content, path.name)


def an_index(arguments: argparse.Namespace, path: Path) -> None:
    content = yaml_file(path, arguments.config.name) if arguments.config else {}
    parse(AdoptConfig, content, path.name, arguments.overrides)


def a_pretraining(arguments: argparse.Namespace, path: Path) -> None:
    trains_generator = "generator" in read_mapping(ROOT / arguments.config)
    load(GeneratorRun if trains_generator else PretrainConfig, ROOT / arguments.config, arguments.overrides)


def a_job(arguments: argparse.Namespace, path: Path) -> None:
    check_paths(load(PretrainConfig, ROOT / arguments.config, arguments.overrides))


def a_search(arguments: argparse.Namespace, path: Path) -> None:
    config = parse(SearchConfig, yaml_file(path, arguments.config.name), path.name, arguments.overrides)
    base = read_mapping(ROOT / config.base)
    for key, dimension in config.space.items():
        for value in dimension.examples:
            parse(PretrainConfig, with_values(base, {key: value}), f"{path.name}: {key}={value}")


def a_finetuning(arguments: argparse.Namespace, path: Path) -> None:
    content = yaml_file(path, arguments.config.name) if arguments.config else {}
    content |= {name: value for name, value in vars(arguments).items() if name in FinetuneConfig.model_fields}
    parse(FinetuneConfig, content, path.name, arguments.overrides)


def an_evaluation(arguments: argparse.Namespace, path: Path) -> None:
    content = {name: value for name, value in vars(arguments).items() if name in EvaluateConfig.model_fields}
    parse(EvaluateConfig, content, path.name, arguments.overrides)


def a_prediction(arguments: argparse.Namespace, path: Path) -> None:
    content = {name: value for name, value in vars(arguments).items() if name in PredictConfig.model_fields}
    parse(PredictConfig, content, path.name)


def an_explanation(arguments: argparse.Namespace, path: Path) -> None:
    content = {name: value for name, value in vars(arguments).items() if name in ExplainConfig.model_fields}
    parse(ExplainConfig, content, path.name, arguments.overrides)


def a_robustness(arguments: argparse.Namespace, path: Path) -> None:
    content = {name: value for name, value in vars(arguments).items() if name in RobustnessConfig.model_fields}
    parse(RobustnessConfig, content, path.name)


def an_embedding(arguments: argparse.Namespace, path: Path) -> None:
    content = {name: value for name, value in vars(arguments).items() if name in EmbedConfig.model_fields}
    parse(EmbedConfig, content, path.name, arguments.overrides)


CHECKS: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "shards build": a_build,
    "shards index": an_index,
    "pretrain": a_pretraining,
    "jobs submit": a_job,
    "plan": a_pretraining,
    "search": a_search,
    "finetune": a_finetuning,
    "predict": a_prediction,
    "explain": an_explanation,
    "embed": an_embedding,
    "robustness": a_robustness,
    "evaluate": an_evaluation,
}


def python(words: list[str], path: Path) -> None:
    """``python -m pretrain ...``, as ``torchrun`` calls it too, and modules of ours."""
    place = words.index("-m")
    module, *rest = words[place + 1 :]
    if module == "pretrain":
        config, *overrides = [word for word in rest if word != "--resume"]
        load(PretrainConfig, ROOT / config, overrides)
    else:
        assert (ROOT / module.replace(".", "/")).is_dir() or (ROOT / f"{module.replace('.', '/')}.py").is_file()


def make(words: list[str], path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def pip(words: list[str], path: Path) -> None:
    assert words[0] in ("install", "wheel")
    for word in words:
        asked = re.fullmatch(r"(?:medformer|\.)\[([\w,]+)\]", word)
        assert asked is None or set(asked[1].split(",")) <= _extras(), f"{path.name}: {word}"
        assert not word.endswith(".txt") or (ROOT / word).is_file(), f"{path.name}: {word}"


def tar(words: list[str], path: Path) -> None:
    assert words[0] == "-tvf" and words[1].endswith(".tar")


def mkdir(words: list[str], path: Path) -> None:
    assert words[0] == "-p" and len(words) == 2


def activate(words: list[str], path: Path) -> None:
    assert words == [".venv/bin/activate"]  # what make sets up


# Programs of others, by their own parsers where they have one here; the files that are named exist.


def ray(words: list[str], path: Path) -> None:
    commands = pytest.importorskip("ray.scripts.scripts").cli.commands
    assert words[0] in commands, f"{path.name}: ray {words[0]}"
    commands[words[0]].make_context(words[0], list(words[1:]))
    names_files(words, path)


def mlflow(words: list[str], path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.cli import cli

    command: Any = cli
    while words and not words[0].startswith("-"):
        name, *words = words
        command = command.commands[name]
    command.parse_args(click.Context(command), list(words))


def sbatch(words: list[str], path: Path) -> None:
    place = next(place for place, word in enumerate(words) if not word.startswith("-"))
    assert (ROOT / words[place]).is_file()
    medformer(["pretrain", *words[place + 1 :]], path)  # which is what the script does with them


def names_files(words: list[str], path: Path) -> None:
    """kubectl, docker: whatever looks like a file of ours is one."""
    for word in words:
        assert not word.startswith("deploy/") or (ROOT / word).is_file(), f"{path.name}: {word}"


def ssh(words: list[str], path: Path) -> None:
    """Ports are forwarded from loopback to loopback."""
    forwarded = [words[place + 1] for place, word in enumerate(words) if word == "-L"]
    assert forwarded and all(re.fullmatch(r"(\d+):127\.0\.0\.1:\1", ports) for ports in forwarded)


def export(words: list[str], path: Path) -> None:
    assert all(re.fullmatch(r"[A-Z_]+=\S+", word) for word in words)


PROGRAMS = {
    "ray": ray,
    "mlflow": mlflow,
    "sbatch": sbatch,
    "kubectl": names_files,
    "docker": names_files,
    "ssh": ssh,
    "export": export,
    "medformer": medformer,
    "python": python,
    "torchrun": python,
    "make": make,
    "pip": pip,
    "tar": tar,
    "mkdir": mkdir,
    ".": activate,
}


def _extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_every_block_has_a_language_that_is_checked_and_few_are_not_run() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES, [
        str(block) for block in BLOCKS if block.language not in LANGUAGES
    ]
    assert all(block.runs or re.match(r"not run: \w", block.note) for block in BLOCKS)
    assert all(not block.note or not block.runs for block in BLOCKS)
    assert sum(not block.runs for block in BLOCKS) <= MOST_NOT_RUN


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_every_command_fits_its_parser_and_its_typed_options(block: Block) -> None:
    for words in block.lines:
        assert words[0] in PROGRAMS, f"{block}: {words[0]} is a program that no check knows"
        PROGRAMS[words[0]](words[1:], block.path)


def test_extras_that_the_text_names_exist() -> None:
    for path in DOCUMENTS:
        for named in re.findall(r"(?:medformer|'\.)\[([\w,]+)\]", path.read_text()):
            assert set(named.split(",")) <= _extras(), f"{path.name}: {named}"


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_every_yaml_block_is_the_file_of_a_command_or_a_part_of_a_pretraining(block: Block) -> None:
    content = yaml.safe_load(block.code)
    file = re.match(r"# ([\w-]+\.yaml)", block.code)
    if file:
        asked = [words for words in command_lines(block.path, "medformer") if file[1] in words]
        assert asked, f"{block}: no command of the document reads {file[1]}"
        return  # that command's test parses it
    base = yaml.safe_load((ROOT / "configs" / "medmnist-nano.yaml").read_text())
    for key, value in content.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    parse(PretrainConfig, base, str(block))


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_every_entry_point_group_that_is_shown_is_one_that_is_read(block: Block) -> None:
    groups = tomllib.loads(block.code)["project"]["entry-points"]
    read = {each.plugins for each in (sources_base.SOURCES, OBJECTIVES, ALIGNMENTS, CORRUPTIONS)}
    assert groups and set(groups) <= read


@pytest.mark.parametrize("block", of("csv"), ids=str)
def test_every_table_is_read_by_the_reader_it_is_shown_for(block: Block, tmp_path: Path) -> None:
    rows = [line.split(",") for line in block.code.splitlines()]
    place = rows[0].index("file")
    for number, row in enumerate(rows[1:]):
        save(tmp_path / row[place], picture(number, 20))
    (tmp_path / "labels.csv").write_text(block.code)
    splits = read_cases(tmp_path, csv=tmp_path / "labels.csv")
    assert sum(len(split) for split in splits.values()) == len(rows) - 1


# Commands that take seconds run as they stand.


def picture(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def save(file: Path, pixels_HW: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels_HW).save(file)


def run(path: Path, *start: str) -> None:
    """Run the commands of a document that begin with ``start``, as they stand there."""
    found = [words[1:] for words in command_lines(path, "medformer") if words[1 : 1 + len(start)] == list(start)]
    assert found, f"{path.name} has no command medformer {shlex.join(start)}"
    for words in found:
        assert main(words) == 0, f"{path.name}: medformer {shlex.join(words)}"


def samples(folder: str) -> int:
    return sum(entry.samples for entry in read_manifest(Path("runs/shards") / folder).splits.values())


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_sources_of_the_document_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    run(SOURCES, "shards", "sources")
    assert "prepare.spacing_mm" in capsys.readouterr().out


def test_the_phantoms_of_the_documents_are_built() -> None:
    run(SOURCES, "shards", "build", "phantoms")
    assert samples("phantom-brain-mri") == 20


def test_a_folder_and_a_table_of_images_are_built_as_the_document_says(tmp_path: Path) -> None:
    """Radiographs in a folder for each patient; knees in a table; heads resampled: the examples of sources.md."""
    archives = {"name=clinic": radiographs, "name=heads": heads, "clinic.yaml": table_of_knees}
    for mark, made in archives.items():
        found = [words[1:] for words in command_lines(SOURCES, "medformer") if mark in words]
        assert len(found) == 1, mark
        made(tmp_path)
        assert main(found[0]) == 0, shlex.join(found[0])
    assert (samples("clinic"), samples("heads"), samples("clinic-knee")) == (12, 6, 10)
    knees = read_manifest(Path("runs/shards/clinic-knee"))
    assert knees.attributes == ("age_years",) and set(knees.splits["train"].images) == {"t1", "t2"}
    assert read_manifest(Path("runs/shards/heads")).splits["train"].images["image"].shape == (1, 64, 64, 64)


def radiographs(folder: Path) -> None:
    for number in range(12):
        save(folder / "scans" / f"patient-{number // 2:02d}" / f"{number}.png", picture(number, 24))


def heads(folder: Path) -> None:
    """The same folder with other images in it."""
    shutil.rmtree(folder / "scans")
    (folder / "scans").mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).normal(100, 20, (20, 22, 24)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(pixels, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "scans" / f"{number}.nii.gz")


def table_of_knees(folder: Path) -> None:
    """The document's YAML with its folder moved here, and the table and files that its columns name."""
    content = yaml_file(SOURCES, "clinic.yaml")
    archive = folder / "archive"
    lines = ["File,Patient,Grade,Fold,Study,Sequence,Age"]
    for number in range(10):
        for sequence in ("t1", "t2"):
            name = f"{number}-{sequence}.png"
            save(archive / name, picture(100 * number + int(sequence[1]), 24))
            fold = ("train", "train", "train", "val", "test")[number % 5]
            lines.append(f"{name},patient-{number},{number % 3},{fold},study-{number},{sequence},{40 + number}")
    table = archive / Path(content["table"]).name
    table.write_text("\n".join(lines) + "\n")
    (folder / "clinic.yaml").write_text(yaml.safe_dump(content | {"root": str(archive), "table": str(table)}))


def test_the_adni_export_of_the_document_is_built(tmp_path: Path) -> None:
    write_export(tmp_path / "export")
    run(ADNI, "shards", "build", "adni")
    assert samples("adni") > 0


def test_the_tars_of_the_document_are_indexed(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    content = yaml_file(SHARDS, "card.yaml")
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "FOLDER").mkdir()
    with webdataset.TarWriter(str(tmp_path / "FOLDER" / "lesions-train-0.tar")) as tar:
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            tar.write(
                {
                    "__key__": f"{number:03d}",
                    "png": PIL.Image.fromarray(pixels),
                    "cls": number % 2,
                    "json": {"patient": f"p{number // 2}", "age": 30 + number},
                }
            )
    run(SHARDS, "shards", "index")
    manifest = read_manifest(tmp_path / "FOLDER")
    assert manifest.splits["train"].samples == 6 and manifest.splits["train"].subjects == 3
    assert manifest.attributes == ("age_years",) and manifest.card.classes == {0: "benign", 1: "malignant"}


def a_model_and_a_table(folder: Path, *, split: bool = False) -> None:
    """A network, 24 images of twelve patients, and ``labels.csv``; a third is the test split where one is wanted."""
    import timm

    from pretrain.bundle import save_bundle

    torch.manual_seed(0)
    backbone = timm.create_model("medformer_nano", num_classes=0, **TINY)
    save_bundle(folder / "runs/models/medmnist-nano", backbone, "medformer_nano", TINY, {}, {})
    lines = ["file,label,subject" + ",split" * split]
    for number in range(24):
        save(folder / "images" / f"{number}.png", picture(number, 20) // (1 + number % 2))
        part = f",{'test' if number >= 16 else 'train'}" * split
        lines.append(f"{number}.png,{('bright', 'dark')[number % 2]},p{number // 2}{part}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_the_fine_tuning_of_a_folder_with_a_table_runs_as_the_document_says(tmp_path: Path) -> None:
    a_model_and_a_table(tmp_path)
    shutil.copytree(tmp_path / "images", tmp_path / "new-images")
    lines = [words[1:] for words in command_lines(FINETUNING, "medformer")]
    for command, result in (
        ("finetune --model runs/models/medmnist-nano --data images", "runs/mine/metrics.json"),
        ("predict runs/mine --data new-images --out runs/predictions.csv", "runs/predictions.csv"),
        ("embed runs/models/medmnist-nano --data images", "runs/features.npz"),
    ):
        found = [words for words in lines if shlex.join(words).startswith(command)]
        assert len(found) == 1 and main(found[0]) == 0
        assert (tmp_path / result).is_file()


def test_the_pages_of_the_document_are_made(tmp_path: Path) -> None:
    """Every command of report.md in its order."""
    a_model_and_a_table(tmp_path, split=True)
    for words in command_lines(REPORT, "medformer"):
        assert main(words[1:]) == 0, shlex.join(words)
    plain, sensitive = (Path("runs") / name for name in ("few/report.html", "sensitive.html"))
    assert "data:image" in plain.read_text() and "data:image" not in sensitive.read_text()
    assert "above 0.3;" in sensitive.read_text()
    assert "data:image/png" in Path("runs/few-with-maps.html").read_text()
