"""A generator of BrainFuse in the registry, and documents that name one there."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from cluster.digests import digest_model
from cluster.errors import RegistryError
from cluster.registry import Registry
from data_shards.sources.phantoms import Phantoms
from data_shards.support.errors import CheckpointError, ConfigError
from data_shards.support.files import home_folder
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from medformer.pulled_models import with_pulled_models
from pretrain.brainfuse.bundle import load_generator, save_generator
from pretrain.brainfuse.generator import Generator, GeneratorConfig
from pretrain.bundle import load_bundle
from pretrain.config import PretrainConfig
from pretrain.preflight import check

SIZE = {"width": 8, "depth": 1, "scales": (2, 1)}
MODEL = {"kwargs": {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 2, "latents_per_entry": 1}}


@pytest.fixture
def name() -> str:
    return f"fuser-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = Generator(GeneratorConfig(**SIZE))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return save_generator(tmp_path / "generator", made, {"seed": 0}, {"gain": 1.0})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "knee"
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=40, images_per_subject=1), folder)
    return folder


def document(shards: Path, out: Path, generator: str, uri: str | None) -> dict:
    return {
        "out": str(out),
        "data": {"datasets": [{"path": str(shards)}], "batch_size": 16},
        "model": MODEL,
        "objectives": {"brainfuse": {"generator": generator, "hidden": 8, "out": 4}},
        "schedule": {"max_steps": 2},
        "health": {"min_embedding_std": 0.0},
        "cluster": {"tracking_uri": uri, "threads_per_worker": 1},
    }


def test_a_pulled_generator_has_the_files_and_the_images_of_the_published_one(
    tracking_uri: str, generator: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--tracking-uri", tracking_uri]
    assert main(["models", "publish", str(generator), "--name", name, "--alias", "champion", *store]) == 0
    assert main(["models", "publish", str(generator), "--name", name, *store]) == 0
    capsys.readouterr()
    assert main(["models", "show", name, *store]) == 0
    shown = capsys.readouterr().out
    assert "brainfuse generator" in shown and "generator.safetensors" in shown
    pulled = tmp_path / "pulled"
    assert main(["models", "pull", f"{name}@champion", "--out", str(pulled), *store]) == 0
    assert digest_model(pulled) == digest_model(generator)
    registry = Registry(tracking_uri)
    (published,) = registry.show(name).versions
    assert published.architecture == "brainfuse generator"
    a, b = torch.rand(2, 1, 1, 16, 16).unbind()
    with torch.no_grad():
        made = [load_generator(folder)(a, b, 0.3).image for folder in (generator, pulled)]
    assert torch.equal(*made) and not torch.allclose(made[0], 0.7 * a + 0.3 * b, atol=1e-3)


def test_a_generator_and_a_network_are_not_taken_for_each_other(
    generator: Path, make_bundle: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=r"not a model bundle: model\.safetensors is missing"):
        load_bundle(generator)
    with pytest.raises(CheckpointError, match="not a generator of BrainFuse"):
        load_generator(make_bundle())


def test_half_a_generator_is_not_published(sqlite_uri: str, generator: Path, name: str) -> None:
    (generator / "metrics.json").unlink()
    with pytest.raises(RegistryError, match=r"not a generator, metrics\.json is missing"):
        Registry(sqlite_uri).publish(generator, name)
    (generator / "metrics.json").write_text("{}")
    (generator / "generator.safetensors").write_bytes((generator / "generator.safetensors").read_bytes()[:-9])
    with pytest.raises(RegistryError, match=r"generator\.safetensors: not a complete safetensors file"):
        Registry(sqlite_uri).publish(generator, name)


def test_a_document_may_name_a_generator_and_a_network_of_the_registry(
    tracking_uri: str, generator: Path, make_bundle: Callable[..., Path], shards: Path, name: str, tmp_path: Path
) -> None:
    registry = Registry(tracking_uri)
    for folder, called in ((generator, name), (make_bundle(), f"{name}-net")):
        registry.promote(called, registry.publish(folder, called).version, "champion")
    content = document(shards, tmp_path / "out", f"{name}@champion", tracking_uri)
    content["model"] = {**MODEL, "init_from": f"{name}-net:1"}
    config = with_pulled_models(PretrainConfig.model_validate(content))
    expected = {
        "generator": home_folder() / "models" / f"{name}-1",
        "network": home_folder() / "models" / f"{name}-net-1",
    }
    assert config.objectives["brainfuse"]["generator"] == expected["generator"]
    assert config.model.init_from == expected["network"]
    assert digest_model(expected["generator"]) == digest_model(generator)
    assert with_pulled_models(config) == config  # folders stay as they are
    with pytest.raises(RegistryError, match="has no alias 'chempion'; did you mean 'champion'"):
        with_pulled_models(PretrainConfig.model_validate(document(shards, tmp_path, f"{name}@chempion", tracking_uri)))
    fusing = PretrainConfig.model_validate(document(shards, tmp_path / "out", str(expected["generator"]), None))
    with warnings.catch_warnings(action="error"):
        check(fusing, 1, resume=False)
    with pytest.raises((CheckpointError, ConfigError), match="nowhere"):
        check(PretrainConfig.model_validate(document(shards, tmp_path / "x", "nowhere", None)), 1, resume=False)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_command_trains_with_a_generator_of_the_registry(
    tracking_server: object, generator: Path, shards: Path, name: str, tmp_path: Path
) -> None:
    uri = str(tracking_server.uri)  # type: ignore[attr-defined]
    registry = Registry(uri)
    registry.promote(name, registry.publish(generator, name).version, "champion")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(document(shards, tmp_path / "out", f"{name}@champion", uri)))
    assert main(["pretrain", str(path)]) == 0
    provenance = load_bundle(tmp_path / "out" / "bundle").provenance
    assert provenance["config"]["objectives"]["brainfuse"]["generator"].endswith(f"models/{name}-1")
