"""README, docs and configs say what is so: their commands parse, their links lead somewhere, their code runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest
import timm
import torch
import torch.distributed as dist
import yaml

from data_shards.format.manifest import read_manifest
from data_shards.order.lanes import Locality
from data_shards.reading.cropped import Crop
from data_shards.reading.reader import ShardedDataset
from data_shards.sources.base import SOURCES, registered_sources
from data_shards.sources.medmnist.source import CONTENT
from data_shards.sources.phantoms import Phantoms
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.documents import Document, load, parse, read_mapping
from data_shards.support.errors import ConfigError, DataError
from data_shards.writing.writer import write_dataset
from finetune.alignment import ALIGNMENTS
from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
from finetune.explain.methods import METHODS as EXPLANATIONS
from finetune.heads import HEADS, CaseFeatures, create_head
from finetune.per_sample import Tape
from finetune.per_sample.rules import base as rules_base
from finetune.shift.corruptions import CORRUPTIONS
from finetune.steppers import STEPPERS
from finetune.steppers.dba.selection import SELECTIONS, Strides
from finetune.strategies import STRATEGIES
from finetune.targets import TARGETS, create_target, target_from_state
from medformer.cli import COMMANDS, parse_words
from pretrain import config as pretrain_config
from pretrain.backbone import normalise
from pretrain.brainfuse.training import GeneratorRun
from pretrain.bundle import save_bundle
from pretrain.config import PretrainConfig
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives import OBJECTIVES
from pretrain.probes.config import ProbedConfig, ProbesConfig
from pretrain.view_factory import ViewFactory
from pretrain.views import ViewConfig, augment
from pretrain.views.transforms import TRANSFORMS
from tests.documents import DOCUMENTS, ROOT, blocks, command_lines, name_of, without_code
from tests.finetune.samples import blobs, tiny_backbone
from tests.pretrain.ranks import run_ranks
from tests.pretrain.view_samples import keys, noise_images
from tests.registries import restored

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PRETRAINING = ROOT / "docs" / "pretraining.md"
VICREG = "pretrain/objectives/vicreg.py"
POSTERISE = "pretrain/views/transforms/posterise.py"
BACKBONE = ROOT / "docs" / "backbone.md"
EXTENDING = ROOT / "docs" / "extending-finetuning.md"
OWN_OBJECTIVE = ROOT / "docs" / "howto" / "own-objective.md"
OWN_HEAD = ROOT / "docs" / "howto" / "own-head.md"
TOUR = ROOT / "docs" / "tour.md"
METHODS = sorted((ROOT / "docs" / "methods").glob("*.md"))
RUNNABLE = [path for path in DOCUMENTS if blocks(path, "python")]
SECTIONS: dict[str, type[Document]] = {
    "": PretrainConfig,
    "data.": pretrain_config.DataConfig,
    "data.datasets.": pretrain_config.DatasetConfig,
    "data.curriculum.": pretrain_config.StageConfig,
    "data.crop.": Crop,
    "data.locality.": Locality,
    "data.reading.": pretrain_config.ReadingConfig,
    "model.": pretrain_config.ModelConfig,
    "views.": ViewConfig,
    "optimizer.": pretrain_config.OptimizerConfig,
    "schedule.": pretrain_config.ScheduleConfig,
    "checkpoint.": pretrain_config.CheckpointConfig,
    "checkpoint.keep_best.": pretrain_config.KeepBest,
    "health.": pretrain_config.HealthConfig,
    "probes.": ProbesConfig,
    "probes.datasets.": ProbedConfig,
    "cluster.": pretrain_config.ClusterConfig,
}


def _as_written(default: object) -> object:
    """A default as YAML reads it."""
    if isinstance(default, Document):
        return default.model_dump(mode="json")
    return list(default) if isinstance(default, tuple) else default


def test_the_documents_show_every_command_but_the_demonstration_which_make_runs() -> None:
    shown = {words[1] for path in DOCUMENTS for words in command_lines(path, "medformer")}
    assert shown == set(COMMANDS) - {"demo"}


def test_the_readme_is_one_screen_with_a_picture_and_its_tour_is_part_of_the_long_one() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110 and "](docs/figures/overview.svg)" in text
    short, long = ({words[1] for words in command_lines(path, "medformer")} for path in (ROOT / "README.md", TOUR))
    assert short <= long


@pytest.mark.parametrize("path", METHODS, ids=name_of)
def test_a_method_says_what_it_is_its_source_our_reading_and_evidence_that_stands_where_it_points(path: Path) -> None:
    """Every figure of the evidence, with its decimals, is in a document that the page links to."""
    text = re.sub(r"\s+", " ", path.read_text())
    parts = ("**What.**", "**Source.**", "**Our reading.**", "**When.**", "**Evidence**", "**Evidence.**")
    assert [part for part in parts if part in text] in ([*parts[:4], parts[4]], [*parts[:4], parts[5]])
    evidence = text.partition("**Evidence")[2]
    linked = {(path.parent / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)]+)\)", evidence)}
    measured = re.sub(r"\s+", " ", " ".join(file.read_text() for file in linked))
    figures = re.findall(r"[-+]?\d*\.\d\d[\de-]*", evidence)
    assert len(figures) >= 4
    assert [figure for figure in figures if figure.lstrip("+") not in measured.replace("+", "")] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_inside_the_repository_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(found), f"{path.name}: {target}: no such heading"


def anchors(path: Path) -> set[str]:
    """The anchors GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", without_code(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_config_that_a_document_names_is_there(path: Path) -> None:
    for config in re.findall(r"configs/[\w-]+\.yaml", path.read_text()):
        assert (ROOT / config).is_file(), f"{path.name}: {config}"


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_config_parses_and_its_header_says_the_command_and_the_result(path: Path) -> None:
    generator = "generator" in read_mapping(path)
    config = load(GeneratorRun if generator else PretrainConfig, path)
    header = [line.removeprefix("#").strip() for line in path.read_text().split("\nout:")[0].splitlines()]
    commands = [shlex.split(line) for line in header if line.startswith("medformer ")]
    assert f"medformer pretrain {name_of(path)}" in header
    assert any(line.startswith("result:") for line in header)
    for words in commands:
        parse_words(words[1:])
    read = {str(config.shards)} if generator else {dataset.path for dataset in config.data.datasets}
    assert read == built_by(commands, "images" if generator else "medmnist")
    assert config.out == Path("runs") / config.out.name


def built_by(commands: list[list[str]], source: str = "medmnist") -> set[str]:
    """The folders that ``shards build`` commands of a source make."""
    folders = set()
    for words in commands:
        if words[1:4] != ["shards", "build", source]:
            continue
        if source == "medmnist":
            arguments = parse_words(words[1:])
            every = "all=true" in arguments.overrides
            folders |= {str(arguments.out / name) for name in (CONTENT if every else arguments.sets)}
        else:
            arguments = parse_words(words[1:])
            options = dict(override.split("=", 1) for override in arguments.overrides)
            folders.add(str(arguments.out / options["name"]))
    return folders


def test_the_tour_builds_the_shards_its_config_reads() -> None:
    config = load(PretrainConfig, ROOT / "configs" / "medmnist-nano.yaml")
    read = {dataset.path for dataset in config.data.datasets}
    assert all(built_by(command_lines(path, "medformer")) == read for path in (TOUR, ROOT / "README.md"))


def test_the_tour_pretrains_as_the_demonstration_does() -> None:
    tour = yaml.safe_load((ROOT / "configs" / "medmnist-nano.yaml").read_text())
    demonstration = yaml.safe_load((ROOT / "medformer" / "demo" / "pretrain.yaml").read_text())
    for document in (tour, demonstration):
        del document["out"], document["cluster"], document["data"]["datasets"]
    assert tour == demonstration


def test_the_tables_of_the_pretraining_document_have_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (?:`(.*?)`|required) \|", PRETRAINING.read_text(), flags=re.MULTILINE)
    documented = {key: yaml.safe_load(default) if default else "required" for key, default in rows}
    told = {key.split(".")[1] for key in documented if key.startswith("objectives.")}
    assert {"barlow_twins", "byol", "simclr"} <= told  # those of others may be registered beside them
    sections = {**SECTIONS, **{f"objectives.{name}.": OBJECTIVES[name].Config for name in told}}
    transforms = {f"views.{name}": None for name, each in TRANSFORMS.items() if not each.on}
    sections |= {f"views.{name}.": each.Config for name, each in TRANSFORMS.items()}
    expected = transforms | {
        f"{prefix}{name}": "required" if field.is_required() else _as_written(field.default)
        for prefix, model in sections.items()
        for name, field in model.model_fields.items()
        if (f"{prefix}{name}." not in SECTIONS and f"{prefix}{name}" != "views.transforms")
        or name in ("datasets", "curriculum", "keep_best")
        if not (prefix.startswith("objectives.") and name == "weight")
    }
    assert documented == expected


def test_the_table_of_sizes_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_words(["models", "sizes"]).run(parse_words(["models", "sizes"])) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    printed = {}
    for name, *numbers in map(str.split, lines):
        *architecture, _, plane, _, _, volume, _ = numbers
        printed[name] = [*architecture, plane, volume]
    rows = re.findall(r"^\| `(medformer_\w+)` \|(.*)\|$", BACKBONE.read_text(), flags=re.MULTILINE)
    assert {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows} == printed
    assert sorted(printed) == timm.list_models("medformer_*")
    for name, numbers in printed.items():
        with torch.device("meta"):
            backbone = timm.create_model(name, num_classes=0)
        assert f"{sum(parameter.numel() for parameter in backbone.parameters()):,}" == numbers[4]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the code of the documents expects: phantoms in the place of images."""
    folder = tmp_path_factory.mktemp("documents")
    phantoms = Phantoms("phantom-knee-mri-2d", subjects=60, images_per_subject=1)
    write_dataset(phantoms, folder / "runs" / "shards" / "breastmnist")
    torch.manual_seed(0)
    backbone = timm.create_model("medformer_nano", num_classes=0)
    save_bundle(folder / "runs" / "models" / "medmnist-nano", backbone, "medformer_nano", {}, {}, {})
    pixels = np.random.default_rng(0).integers(0, 256, (24, 12, 12), dtype=np.uint8)
    for number, image_HW in enumerate(pixels):
        patient = folder / "scans" / f"patient-{number // 2}"
        patient.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image_HW).save(patient / f"{number}.png")
    return folder


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> Iterator[Path]:
    """The workspace as current folder; what the examples register and import is gone afterwards."""
    monkeypatch.chdir(workspace)
    registered_sources()  # what the examples bring is dropped, not what they were the first to import
    fits = (HEADS, STRATEGIES, TARGETS, STEPPERS, SELECTIONS, rules_base._rules, ALIGNMENTS)
    modules = set(sys.modules)
    with restored(SOURCES, TRANSFORMS, OBJECTIVES, *fits, CORRUPTIONS, EXPLANATIONS):
        yield workspace
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(workspace)):
            del sys.modules[name]


def import_as(code: str, name: str, folder: Path) -> ModuleType:
    """The module ``name`` from code that stands in a file of ``folder``."""
    file = folder / f"{name}.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example_file(path: Path, name: str) -> tuple[str, str]:
    """The block that a document says is a file, and the name of its module."""
    code = next(code for code in blocks(path, "python") if code.startswith(f"# {name}\n"))
    assert not (ROOT / name).exists(), f"{name} is an example in {path.name} and a file"
    return code, name.removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize(
    "path",
    # The examples of EXTENDING are files that tests below import and prove; a regression without options is its rest.
    [pytest.param(path, marks=pytest.mark.slow if path == EXTENDING else ()) for path in RUNNABLE],
    ids=name_of,
)
def test_the_python_of_a_document_runs(path: Path, examples: Path) -> None:
    found = blocks(path, "python")
    assert found
    for number, code in enumerate(found):
        file = re.match(r"# ([\w/]+\.py)\n", code)
        module = example_file(path, file[1])[1] if file else f"{path.stem}_{number}"
        import_as(code, module, examples)


def test_the_example_source_makes_shards_with_whole_patients(examples: Path) -> None:
    code, name = example_file(ROOT / "docs" / "shards.md", "data_shards/sources/archive.py")
    archive = import_as(code, name, examples).Archive(examples / "scans", salt="salt")
    write_dataset(archive, examples / "archive")
    splits = read_manifest(examples / "archive").splits
    assert sum(entry.samples for entry in splits.values()) == 24
    assert sum(entry.subjects for entry in splits.values()) == 12


def test_the_example_objective_equals_that_of_lightly(examples: Path) -> None:
    from lightly.loss import VICRegLoss

    vicreg = import_as(*example_file(OWN_OBJECTIVE, VICREG), examples)
    generator = torch.Generator().manual_seed(0)
    za_BD, zb_BD = torch.randn(2, 19, 7, generator=generator, dtype=torch.float64)
    invariance, variance, covariance = vicreg.vicreg_terms(za_BD, zb_BD, len(za_BD))
    torch.testing.assert_close(25 * invariance + 25 * variance + covariance, VICRegLoss()(za_BD, zb_BD))


def test_the_example_objective_trains_by_its_document(examples: Path) -> None:
    import_as(*example_file(OWN_OBJECTIVE, VICREG), examples)
    folder = examples / "runs" / "shards" / "breastmnist"
    content = {
        "out": "runs/vicreg",
        "data": {"datasets": [{"path": str(folder)}], "batch_size": 16},
        "objectives": {"vicreg": {"spread": 10, "hidden": 32, "out": 16}},
    }
    config = parse(PretrainConfig, content, "document")
    module = PretrainModule(create_backbone(config.model), config.objectives)
    batch = next(iter(SampleStream([ShardedDataset(folder, "train")], batch_size=16, seed=0)))
    loss, parts = module(ViewFactory(config, torch.device("cpu"))(batch))
    loss.backward()
    assert set(parts) == {f"vicreg/{part}" for part in ("loss", "invariance", "variance", "covariance")}
    assert module.backbone.query.grad is not None and module.backbone.query.grad.abs().sum() > 0
    with pytest.raises(ConfigError, match=r"objectives\.vicreg.*did you mean 'spread'"):
        parse(PretrainConfig, content, "document", ["objectives.vicreg.spred=10"])


@pytest.mark.slow
def test_the_example_objective_has_on_two_ranks_the_gradient_of_one_process(examples: Path) -> None:
    code, name = example_file(OWN_OBJECTIVE, VICREG)
    alone = vicreg_gradient(0, 1, code, name, examples)
    for gradient in run_ranks(vicreg_gradient, 2, code, name, examples):
        torch.testing.assert_close(gradient, alone, rtol=1e-10, atol=1e-12)


def vicreg_gradient(rank: int, world_size: int, code: str, name: str, folder: Path) -> torch.Tensor:
    """The gradient of the example's loss with respect to a linear map, averaged over ranks that hold different data."""
    own = folder / f"{world_size}-ranks-{rank}"
    own.mkdir()
    vicreg = import_as(code, name, own)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    views = torch.randn(2, 23, 6, generator=generator, dtype=torch.float64) * torch.linspace(1, 3, 23)[:, None]
    rows = slice(rank * 23 // world_size, (rank + 1) * 23 // world_size)
    invariance, variance, covariance = vicreg.vicreg_terms(*(views[:, rows] @ weight), 23)
    (25 * invariance + 25 * variance + covariance).backward()
    assert weight.grad is not None
    if world_size > 1:
        dist.all_reduce(weight.grad)
    return weight.grad / world_size


def test_the_example_transform_is_applied_by_its_document_and_has_its_own_numbers(examples: Path) -> None:
    import_as(*example_file(PRETRAINING, POSTERISE), examples)
    content = {"views": {**dict.fromkeys(TRANSFORMS), "posterise": {"levels": 8, "probability": 0.5}}, "out": "runs/x"}
    content |= {"data": {"datasets": [{"path": "x"}]}, "objectives": {"simclr": {}}}
    views = parse(PretrainConfig, content, "document").views
    images, own = noise_images(64, 1, 12, 12), keys(64)
    found = augment(images, own, views)
    levels = torch.tensor([len(image.unique()) for image in found])
    left = (found - normalise(images)).abs().flatten(1).amax(dim=1) < 1e-6
    assert 16 < left.sum() < 48 and levels[~left].min() < 40
    distance = (found[~left] - normalise(images[~left])).abs().flatten(1).amax(dim=1)
    assert (distance <= 1 / (levels[~left] - 1) + 1e-5).all()
    assert torch.equal(torch.cat([augment(images[i : i + 5], own[i : i + 5], views) for i in range(0, 64, 5)]), found)
    with pytest.raises(ConfigError, match=r"views\.posterise\.level'; did you mean 'levels'"):
        parse(PretrainConfig, content, "document", ["views.posterise.level=10"])


def test_the_example_head_ignores_padding_and_learns(examples: Path) -> None:
    import_as(*example_file(OWN_HEAD, "finetune/heads/max.py"), examples)
    head = create_head("max", 8, 2).double()
    tokens_BTD = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    embedding_BD = tokens_BTD[:, 0]
    plain = head(CaseFeatures(embedding_BD, tokens_BTD))
    torch.testing.assert_close(head(CaseFeatures(embedding_BD, tokens_BTD.flip(1))), plain)
    padded_BTD = torch.cat([tokens_BTD, torch.full((3, 2, 8), 9.0, dtype=torch.float64)], dim=1)
    weight_BT = torch.tensor([[0.2] * 5 + [0.0] * 2] * 3, dtype=torch.float64)
    torch.testing.assert_close(head(CaseFeatures(embedding_BD, padded_BTD, weight_BT)), plain)
    plain.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in head.parameters())
    with pytest.raises(ConfigError, match="head max: .*did you mean 'dropout'"):
        create_head("max", 8, 2, {"dropuot": 0.5})
    train, test = blobs(24, seed=1), blobs(40, seed=2)
    classifier = FewLabelClassifier(tiny_backbone(), head="max", learning_rate=1e-2).fit(train)
    assert classifier.score(test) > 0.8


def test_the_example_strategy_moves_vectors_and_leaves_the_bits_of_matrices(examples: Path) -> None:
    import_as(*example_file(EXTENDING, "finetune/strategies/vectors.py"), examples)
    backbone = tiny_backbone()
    options = {"max_steps": 3, "learning_rate": 1e-2, "backbone_rate": 1e-2}
    classifier = FewLabelClassifier(backbone, strategy="vectors", **options).fit(blobs(12, seed=1))
    after = dict(classifier.predictor_.members[0].backbone.named_parameters())
    moved = {name for name, weight in backbone.named_parameters() if not torch.equal(weight, after[name])}
    assert moved and moved <= {name for name, weight in backbone.named_parameters() if weight.ndim == 1}
    assert any("norm" in name for name in moved) and any("bias" in name for name in moved)


def test_the_example_target_learns_logarithms_and_comes_back_as_it_was(examples: Path, tmp_path: Path) -> None:
    sizes = import_as(*example_file(EXTENDING, "finetune/targets/sizes.py"), examples)
    generator = np.random.default_rng(0)
    features_ND = generator.normal(size=(30, 3))
    labels_NL = np.exp(5 + features_ND @ [[0.5], [-1], [0]] + 0.1 * generator.normal(size=(30, 1)))
    target = create_target("regression", ["ml"]).fitted_to(labels_NL)
    assert isinstance(target, sizes.SizeTarget)
    assert vars(target_from_state(target.state())).keys() == vars(target).keys()
    assert target_from_state(target.state()).state() == target.state()
    (affine,) = target.linear_path(features_ND, labels_NL, [10.0], None)
    logs = (np.log(labels_NL) - np.log(labels_NL).mean()) / np.log(labels_NL).std()
    design = np.c_[features_ND - features_ND.mean(axis=0)]
    closed = np.linalg.solve(design.T @ design + np.eye(3) / 10, design.T @ logs)
    np.testing.assert_allclose(affine.weight_KD, closed.T, atol=1e-8)
    told = target.log_scores(affine(features_ND))
    expected = (torch.from_numpy(logs) - affine(features_ND)).square().sum(dim=1) / 2
    torch.testing.assert_close(target.log_loss(told, labels_NL), expected)
    with pytest.raises(DataError, match="a size is above 0, found -1"):
        target.check(np.array([[2.0], [-1.0]]))
    cases = blobs(24, seed=1)
    regressor = FewLabelRegressor(tiny_backbone()).fit(cases.images, np.exp(2.0 * cases.targets + 1))
    assert (regressor.predict(cases.images) > 0).all() and regressor.score(
        cases.images, np.exp(2.0 * cases.targets + 1)
    ) > 0.8


def test_the_example_stepper_is_the_plain_one_where_it_looks_nowhere_else(examples: Path) -> None:
    import_as(*example_file(EXTENDING, "finetune/steppers/sharpness_aware.py"), examples)
    cases, test = blobs(20, seed=1), blobs(10, seed=2)

    def told(**options: object) -> np.ndarray:
        fixed = {"head": "attention", "max_steps": 12, "learning_rate": 1e-2, "batch_size": 8, "calibrate": False}
        return FewLabelClassifier(tiny_backbone(), **fixed, **options).fit(cases).predict_proba(test)

    plain = told()
    near, far = (told(stepper="sharpness_aware", stepper_options={"radius": radius}) for radius in (1e-7, 0.5))
    np.testing.assert_allclose(near, plain, atol=1e-3)
    assert np.abs(far - plain).max() > 1e-2
    with pytest.raises(ConfigError, match="draws are shuffled and not mixed"):
        told(stepper="sharpness_aware", mixup=0.4)


def test_the_example_rule_has_the_gradients_of_single_cases_and_the_example_selection_is_chosen_by(
    examples: Path,
) -> None:
    import_as(*example_file(EXTENDING, "finetune/per_sample/rules/bilinear.py"), examples)
    import_as(*example_file(EXTENDING, "finetune/steppers/dba/selection/agreement.py"), examples)
    layer, first, second = torch.nn.Bilinear(3, 4, 2).double(), torch.randn(5, 3).double(), torch.randn(5, 4).double()
    tape = Tape(layer, 5)
    with tape.recording(torch.arange(5)):
        tape.backward(layer(first, second).square().sum(dim=1))
    (found,) = tape.layers()
    for case in range(5):
        loss = layer(first[case : case + 1], second[case : case + 1]).square().sum()
        torch.testing.assert_close(found.gradient(layer.weight)[case], torch.autograd.grad(loss, layer.weight)[0])
    # Of two strides that agree and one against them, the two.
    sums = np.array([[2.0, 1.0], [2.0, 0.9], [-2.0, 1.0]])
    strides = Strides((sums @ sums.T)[None], np.array([2, 2, 2]), 4, 6)
    chosen = SELECTIONS.named("agreement")(None).choose(strides, np.random.default_rng(0))
    assert chosen.tolist() == [[True, True, False]]
