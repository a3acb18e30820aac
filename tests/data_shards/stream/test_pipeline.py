"""Our shards as a webdataset pipeline: the samples of stock webdataset, in our order, resumed anywhere."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from data_shards.foreign.adopt import AdoptConfig, adopt
from data_shards.format.manifest import read_manifest
from data_shards.pipeline import ShardPipeline, webdataset_pipeline
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import Image, Sample
from data_shards.stream import SampleStream
from data_shards.support.errors import CheckpointError, ConfigError, DataError
from data_shards.vocabulary import Modality, Organ
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample, toy_source

SAMPLES = 57


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pipeline") / "toy"
    write_dataset(toy_source({"train": SAMPLES, "val": 5}, shape=(3, 6, 5)), out, shard_bytes=30_000)
    assert len(read_manifest(out).splits["train"].shards) > 3
    return out


def stock(folder: Path, split: str = "train") -> Iterator[dict[str, Any]]:
    shards = [str(folder / shard.file) for shard in read_manifest(folder).splits[split].shards]
    return iter(webdataset.WebDataset(shards, shardshuffle=False))


def keys(pipeline: Any) -> list[str]:
    return [sample["__key__"] for sample in pipeline]


def by_key(samples: Any) -> dict[str, dict[str, Any]]:
    found = list(samples)
    assert len({sample["__key__"] for sample in found}) == len(found)
    return {sample["__key__"]: sample for sample in found}


def files(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if not name.startswith("__")}


def test_files_are_the_bytes_that_stock_webdataset_reads_and_the_label_is_added_as_cls(folder: Path) -> None:
    ours, theirs = by_key(webdataset_pipeline(folder, "train", seed=0)), by_key(stock(folder))
    assert ours.keys() == theirs.keys() and len(ours) == SAMPLES
    for key, sample in theirs.items():
        label = json.loads(sample["json"])["label"]
        assert files(ours[key]) == files(sample) | {"cls": str(label[0]).encode()}
        assert ours[key]["__url__"] == sample["__url__"]


def test_studies_of_several_images_come_whole(tmp_path: Path) -> None:
    def study(number: int) -> Sample:
        names = ("T2w", "adc") if number % 2 else ("T2w",)
        images = {name: Image(np.full((1, 4, 4), number, np.int16), Modality.mri, (1.0, 2.0)) for name in names}
        extra = {"age_years": 50.5} if number % 3 else {}
        return Sample(f"s{number}", images, Organ.brain, f"p{number}", "train", attributes=extra)

    write_dataset(Listed([study(number) for number in range(9)], card()), tmp_path / "toy", shard_bytes=6000)
    theirs = by_key(stock(tmp_path / "toy"))
    ours = by_key(webdataset_pipeline(tmp_path / "toy", "train", seed=0, image="T2w"))
    assert {key: files(sample) for key, sample in ours.items()} == {key: files(s) for key, s in theirs.items()}
    assert set(files(ours["s1"])) == {"t2w.npy", "adc.npy", "json"}
    assert len(keys(webdataset_pipeline(tmp_path / "toy", "train", seed=0, image="adc"))) == 4


def test_shards_of_others_come_with_every_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "foreign"
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "a-train-%06d.tar"), maxcount=7, verbose=0) as writer:
        for number in range(20):
            sample = {
                "__key__": f"clinic/k{number:02d}" + ("x" * 120 if number == 5 else ""),
                "txt": f"before {number}",
                "png": random.integers(0, 255, (5, 6, 3), np.uint8),
                "cls": number % 3,
                "json": {"age": number},
            }
            writer.write(sample if number % 4 else {name: value for name, value in sample.items() if name != "txt"})
    adopt(folder, AdoptConfig(card=card("foreign")))
    theirs = by_key(stock(folder))
    ours = by_key(webdataset_pipeline(folder, "train", seed=0))
    assert {key: files(sample) for key, sample in ours.items()} == {key: files(s) for key, s in theirs.items()}
    decoded = by_key(webdataset_pipeline(folder, "train", seed=0).decode("rgb8"))
    for sample in webdataset.WebDataset(
        [str(path) for path in sorted(folder.glob("*.tar"))], shardshuffle=False
    ).decode("rgb8"):
        assert (decoded[sample["__key__"]]["png"] == sample["png"]).all()
        assert decoded[sample["__key__"]]["cls"] == sample["cls"]


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_the_order_is_the_one_of_the_stream(folder: Path, batch_size: int) -> None:
    dataset = ShardedDataset(folder, "train")
    pipeline = webdataset_pipeline(folder, "train", seed=3, batch_size=batch_size)
    epochs = [keys(pipeline), keys(pipeline)]
    shown: dict[int, list[str]] = {0: [], 1: []}
    for batch in SampleStream([dataset], batch_size=batch_size, seed=3, readers=0):
        if batch.epoch == 2:
            break
        shown[batch.epoch] += [key.decode() for key in dataset.describe(batch.sample_B.numpy()).key_B]
    assert epochs == [shown[0], shown[1]] and epochs[0] != epochs[1]
    assert set(Counter(epochs[0]).values()) == {1} and len(epochs[0]) == SAMPLES
    assert keys(webdataset_pipeline(folder, "train", seed=3, batch_size=batch_size, epoch=1)) == epochs[1]


@pytest.mark.parametrize("world_size", [1, 2, 5, 60])
def test_ranks_share_an_epoch_without_gap_or_overlap(folder: Path, world_size: int) -> None:
    whole = keys(webdataset_pipeline(folder, "train", seed=0))
    parts = [
        keys(webdataset_pipeline(folder, "train", seed=0, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert parts == [whole[rank::world_size] for rank in range(world_size)]


def test_steps_of_webdataset_compose(folder: Path) -> None:
    pipeline = webdataset_pipeline(folder, "train", seed=0).decode()
    twice = pipeline.map_dict(npy=lambda image_CHW: image_CHW * 2).to_tuple("npy", "cls").batched(10)
    batches = list(twice)
    assert isinstance(twice, ShardPipeline) and [len(images) for images, _ in batches] == [10] * 5 + [7]
    dataset = ShardedDataset(folder, "train")
    records = dataset.read(np.arange(SAMPLES))
    expected = {key.decode(): row for row, key in enumerate(records.key_B)}
    order = [expected[key] for key in keys(webdataset_pipeline(folder, "train", seed=0))]
    assert (np.concatenate([images for images, _ in batches]) == records.stacked[order] * 2).all()
    assert np.concatenate([labels for _, labels in batches]).tolist() == records.label_BL[order, 0].tolist()
    pipeline = webdataset_pipeline(folder, "train", seed=0)
    chosen = pipeline.select(lambda sample: sample["cls"] == b"1").map(lambda sample: sample["__key__"]).shuffle(20)
    assert sorted(chosen) == sorted(key for key, row in expected.items() if records.label_BL[row, 0] == 1)
    assert [len(batch) for batch in webdataset_pipeline(folder, "train", seed=0).listed(20, partial=False)] == [20, 20]


@pytest.mark.parametrize(("before", "after", "used"), [(1, 1, 20), (2, 3, 11), (4, 1, 5), (1, 4, 56), (3, 2, 19)])
def test_an_epoch_goes_on_at_any_sample_on_another_number_of_ranks(
    folder: Path, before: int, after: int, used: int
) -> None:
    def pipeline(rank: int, world_size: int) -> ShardPipeline:
        return webdataset_pipeline(folder, "train", seed=1, batch_size=8, rank=rank, world_size=world_size)

    whole = keys(pipeline(0, 1))
    states, shown = [], []
    for rank in range(before):
        part = pipeline(rank, before)
        samples = iter(part)
        shown += [next(samples)["__key__"] for _ in range(used)]
        states.append(part.state_dict())
        assert part.state_dict(samples=used) == states[-1]
    assert all(state == states[0] for state in states)
    state = json.loads(json.dumps(states[0]))
    rest = []
    for rank in range(after):
        part = pipeline(rank, after)
        part.load_state_dict(state)
        if state["epoch"] == 0:
            rest += keys(part)
        assert part.state_dict()["epoch"] == 1 and len(keys(part)) in (SAMPLES // after, -(-SAMPLES // after))
    assert Counter(shown + rest) == Counter(whole)


def test_a_batch_is_used_when_it_was_handed_out_and_a_broken_loop_goes_on(folder: Path) -> None:
    whole = keys(webdataset_pipeline(folder, "train", seed=0))
    pipeline = webdataset_pipeline(folder, "train", seed=0)
    batches = pipeline.map(lambda sample: sample["__key__"]).listed(10)
    first = next(iter(batches))
    assert pipeline.state_dict()["position"] == 10  # also that of the pipeline it was made from
    assert first + [key for batch in batches for key in batch] == whole


def test_a_state_of_another_order_is_refused(folder: Path) -> None:
    state = webdataset_pipeline(folder, "train", seed=0).state_dict()
    for other in (
        webdataset_pipeline(folder, "train", seed=1),
        webdataset_pipeline(folder, "val", seed=0),
        webdataset_pipeline(folder, "train", seed=0, batch_size=8),
    ):
        with pytest.raises(CheckpointError, match="another seed, batch size or dataset"):
            other.load_state_dict(state)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        webdataset_pipeline(folder, "train", seed=0, rank=2, world_size=2)


def _keys_of(samples: list[dict[str, Any]]) -> list[str]:
    return [sample["__key__"] for sample in samples]


def batches(
    folder: Path, workers: int, rank: int, state: dict[str, Any] | None = None, start: str = "fork"
) -> list[list[str]]:
    """What the loader of one of two ranks hands out."""
    pipeline = webdataset_pipeline(folder, "train", seed=0, rank=rank, world_size=2, neighbours=4)
    if state is not None:
        pipeline.load_state_dict(state)
    context: Any = start if workers else None
    loader = DataLoader(
        pipeline, batch_size=4, collate_fn=_keys_of, num_workers=workers, multiprocessing_context=context
    )
    return list(loader)


def test_two_workers_hand_out_what_one_process_does_and_each_reads_its_share(folder: Path) -> None:
    ranks = [batches(folder, 2, rank) for rank in (0, 1)]
    assert ranks == [batches(folder, 0, rank) for rank in (0, 1)]
    whole = keys(webdataset_pipeline(folder, "train", seed=0))
    assert [key for batch in ranks[0] for key in batch] == whole[::2]
    assert sorted(key for rank in ranks for batch in rank for key in batch) == sorted(whole)

    state = webdataset_pipeline(folder, "train", seed=0, rank=0, world_size=2).state_dict(samples=12)
    rest = [key for rank in (0, 1) for batch in batches(folder, 2, rank, state) for key in batch]
    assert sorted(rest) == sorted(whole[24:])


def test_a_pipeline_reaches_workers_that_are_not_forked(folder: Path) -> None:
    assert batches(folder, 1, 1, start="forkserver") == batches(folder, 0, 1)


class Asking:
    """Asks the pipeline for its state, in whatever process."""

    def __init__(self, pipeline: ShardPipeline) -> None:
        self.pipeline = pipeline

    def __call__(self, sample: dict[str, Any]) -> str:
        with pytest.raises(ConfigError, match="a worker does not know"):
            self.pipeline.state_dict()
        return str(sample["__key__"])


def test_epochs_of_a_loader_with_workers_are_set(folder: Path) -> None:
    whole = [keys(webdataset_pipeline(folder, "train", seed=0, epoch=epoch)) for epoch in (0, 1)]
    pipeline = webdataset_pipeline(folder, "train", seed=0)
    loader = DataLoader(pipeline.map(Asking(pipeline)), batch_size=None, num_workers=2)
    shown = []
    for epoch in (0, 1):
        pipeline.set_epoch(epoch)
        shown.append(list(loader))
    assert shown == whole


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_persistent_workers_see_the_epoch_and_the_state_and_refuse_to_guess(folder: Path, start: str) -> None:
    whole = [keys(webdataset_pipeline(folder, "train", seed=0, epoch=epoch)) for epoch in range(6)]
    pipeline = pickle.loads(pickle.dumps(webdataset_pipeline(folder, "train", seed=0)))  # a copy has its own workers
    context: Any = start
    loader = DataLoader(
        pipeline, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=context
    )
    assert keys(loader) == whole[0]
    pipeline.set_epoch(5)
    assert keys(loader) == whole[5]
    pipeline.load_state_dict(webdataset_pipeline(folder, "train", seed=0, epoch=2).state_dict(samples=20))
    samples = iter(loader)
    shown = [next(samples)["__key__"] for _ in range(7)]
    pipeline.load_state_dict(pipeline.state_dict(samples=7))
    assert shown + keys(loader) == whole[2][20:]
    with pytest.raises(ConfigError, match="begin every epoch with set_epoch or load_state_dict"):
        keys(loader)


def test_an_epoch_may_be_repeated_within_a_pass(folder: Path) -> None:
    whole = [keys(webdataset_pipeline(folder, "train", seed=0, epoch=epoch)) for epoch in (0, 1)]
    for workers in (0, 1):
        pipeline = webdataset_pipeline(folder, "train", seed=0).repeat(2)
        assert keys(DataLoader(pipeline, batch_size=None, num_workers=workers)) == whole[0] + whole[1]


def test_a_state_behind_a_buffer_is_of_the_epoch_that_is_shown(folder: Path) -> None:
    pipeline = webdataset_pipeline(folder, "train", seed=0).shuffle(100)
    samples = iter(pipeline)
    for used in range(1, SAMPLES + 1):
        next(samples)
        expected = (0, used) if used < SAMPLES else (1, 0)
        state = pipeline.state_dict(used)
        assert (state["epoch"], state["position"]) == expected
    assert pipeline.state_dict() == state


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_the_state_after_the_last_batch_is_the_beginning_of_the_next_epoch(folder: Path, world_size: int) -> None:
    whole = keys(webdataset_pipeline(folder, "train", seed=0, epoch=1))
    for rank in range(world_size):
        pipeline = webdataset_pipeline(folder, "train", seed=0, rank=rank, world_size=world_size)
        used = 0
        for batch in pipeline.batched(10, None):
            used += len(batch)
            state = pipeline.state_dict(used)
        assert (state["epoch"], state["position"]) == (1, 0)
        assert pipeline.state_dict(used) == pipeline.state_dict() == state
        resumed = webdataset_pipeline(folder, "train", seed=0, rank=rank, world_size=world_size)
        resumed.load_state_dict(state)
        assert keys(resumed) == keys(pipeline) == whole[rank::world_size]


@pytest.mark.parametrize("taken", [5, 50])
def test_a_loop_broken_with_samples_in_a_buffer_does_not_lose_them_unsaid(folder: Path, taken: int) -> None:
    pipeline = webdataset_pipeline(folder, "train", seed=0).shuffle(20, initial=20)
    samples = iter(pipeline)
    for _ in range(taken):
        next(samples)
    with pytest.raises(ConfigError, match=r"shuffle holds \d+ items .* say how many samples were used"):
        pipeline.state_dict()
    with pytest.raises(ConfigError, match=r"shuffle holds \d+ items .* go on with set_epoch"):
        keys(pipeline)
    pipeline.load_state_dict(pipeline.state_dict(taken))
    assert len(keys(pipeline)) == SAMPLES - taken
    assert len(keys(pipeline)) == SAMPLES  # nothing is left behind after a whole epoch


def test_a_pipeline_pickles_with_its_state(folder: Path) -> None:
    pipeline = webdataset_pipeline(folder, "train", seed=0).to_tuple("__key__")
    samples = iter(pipeline)
    first = [next(samples) for _ in range(5)]
    copy = pickle.loads(pickle.dumps(pipeline))
    assert first + list(copy) == list(webdataset_pipeline(folder, "train", seed=0).to_tuple("__key__"))


def test_damage_is_told_with_the_shard(folder: Path, tmp_path: Path) -> None:
    samples = [toy_sample(str(number), pixels=np.full((1, 4, 4), number, np.uint8)) for number in range(3)]
    manifest = write_dataset(Listed(samples, card()), tmp_path / "toy")
    shard = tmp_path / "toy" / manifest.splits["train"].shards[0].file
    content = bytearray(shard.read_bytes())
    content[content.index(bytes([2] * 16))] = 9
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"train-000000\.tar: damaged: the pixels of sample 2"):
        list(webdataset_pipeline(tmp_path / "toy", "train", seed=0))


def test_tensors_of_a_loader_train(folder: Path) -> None:
    pipeline = webdataset_pipeline(folder, "train", seed=0).decode().to_tuple("npy", "cls").batched(16)
    images, labels = next(iter(webdataset.WebLoader(pipeline, batch_size=None)))
    assert torch.as_tensor(images).shape == (16, 3, 6, 5) and len(labels) == 16
