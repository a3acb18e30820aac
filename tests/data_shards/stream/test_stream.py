"""R1 (a resumed epoch shows exactly what was left) and R2 (every rank gets the same batches), for any numbers."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from data_shards.order.lanes import Locality
from data_shards.order.mixture import Stage
from data_shards.order.plan import BatchPlan, Share, apportion, part
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import Image, Sample
from data_shards.stream.batch import Batch
from data_shards.stream.batch_reader import StreamState
from data_shards.stream.prefetch import THREAD_NAME
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import CheckpointError, ConfigError, DataError
from data_shards.vocabulary import Organ
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample, toy_source
from tests.data_shards.shards import with_an_empty_shard

SIZES = {"one": 1, "seven": 7, "many": 41}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardedDataset]:
    folder = tmp_path_factory.mktemp("shards")
    for name, count in SIZES.items():
        manifest = write_dataset(toy_source({"train": count}, name=name), folder / name, shard_bytes=20_000)
    with_an_empty_shard(folder / "many", manifest, places=(0, 2))
    return {name: ShardedDataset(folder / name, "train") for name in SIZES}


def drawn(stream: SampleStream, batches: int) -> list[Batch]:
    iterator = iter(stream)
    try:
        return list(itertools.islice(iterator, batches))
    finally:
        iterator.close()  # type: ignore[attr-defined]


def identities(batches: Sequence[Batch]) -> list[tuple[str, int]]:
    return [(batch.name, sample) for batch in batches for sample in batch.sample_B.tolist()]


shares_strategy = st.lists(st.integers(1, 120), min_size=1, max_size=3).map(
    lambda sizes: [Share(f"set{place}", size) for place, size in enumerate(sizes)]
)


@settings(deadline=None, max_examples=50)
@given(shares_strategy, st.integers(1, 64), st.integers(0, 2**31), st.integers(0, 5))
def test_an_epoch_shows_every_sample_once_in_batches_of_nearly_one_size(
    shares: list[Share], batch_size: int, seed: int, epoch: int
) -> None:
    plan = BatchPlan(shares, batch_size=batch_size, seed=seed)
    batches = [plan.global_batch(epoch, position) for position in range(plan.batches_per_epoch)]
    for place, share in enumerate(shares):
        own = [batch.sample_B for batch in batches if batch.dataset == place]
        assert sorted(np.concatenate(own).tolist()) == list(range(share.samples))
        sizes = {len(samples) for samples in own}
        assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1


@settings(deadline=None, max_examples=30)
@given(
    shares_strategy,
    st.integers(3, 40),
    st.integers(0, 99),
    st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
def test_with_weights_each_dataset_still_runs_through_exact_epochs_of_its_own(
    shares: list[Share], batch_size: int, seed: int, weights: list[int]
) -> None:
    try:
        plan = BatchPlan(shares, batch_size=batch_size, seed=seed, weights=weights[: len(shares)])
    except ConfigError:  # a weight too small for one batch; apportionment has its own test
        reject()
    assert plan.batches_per_epoch == sum(plan.cycle)
    epochs = 4
    shown = [Counter[int]() for _ in shares]
    showings = Counter[tuple[int, int, int]]()
    for epoch in range(epochs):
        for position in range(plan.batches_per_epoch):
            batch = plan.global_batch(epoch, position)
            shown[batch.dataset].update(batch.sample_B.tolist())
            showings.update((batch.dataset, batch.dataset_epoch, sample) for sample in batch.sample_B.tolist())
    assert set(showings.values()) == {1}
    for place, share in enumerate(shares):
        rounds, begun = divmod(epochs * plan.turns[place], plan.cycle[place])
        counts = [shown[place][sample] for sample in range(share.samples)]
        assert min(counts) == rounds and max(counts) == rounds + (begun > 0)


@given(st.integers(0, 500), st.integers(1, 70))
def test_ranks_cut_a_batch_without_gap_or_overlap_and_evenly(total: int, parts: int) -> None:
    bounds = [part(total, number, parts) for number in range(parts)]
    assert [first for first, _ in bounds] == [0, *(last for _, last in bounds[:-1])] and bounds[-1][1] == total
    sizes = [last - first for first, last in bounds]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 1000), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_apportionment_gives_away_every_batch_within_one_of_the_quota(total: int, weights: list[float]) -> None:
    names = [str(place) for place in range(len(weights))]
    try:
        counts = apportion(total, weights, names)
    except ConfigError:
        return
    assert sum(counts) == total
    assert all(abs(count - total * w / sum(weights)) < 1 for count, w in zip(counts, weights, strict=True))


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_interrupted_twice_on_changing_ranks_and_readers_the_stream_shows_what_an_unbroken_one_shows(
    datasets: dict[str, ShardedDataset], data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(list(SIZES)), min_size=1, max_size=3, unique=True))
    mixture = [datasets[name] for name in names]
    weights = data.draw(st.none() | st.just([1.0 + place for place in range(len(names))]))
    options = {"batch_size": data.draw(st.integers(1, 16)), "seed": data.draw(st.integers(0, 99)), "weights": weights}
    if weights is None and data.draw(st.booleans(), label="curriculum"):
        firsts = [0, *sorted(data.draw(st.sets(st.integers(1, 60), max_size=2)))]
        # One dataset after the other, then all.
        ones = [tuple(float(place == number % len(names)) for place in range(len(names))) for number in range(2)]
        options["stages"] = [Stage(*each) for each in zip(firsts, [*ones, (1.0,) * len(names)], strict=False)]
    try:
        whole = SampleStream(mixture, **options)
    except ConfigError:  # a weight too small for one batch; apportionment has its own test
        reject()
    pieces = [data.draw(st.integers(0, 2 * whole.batches_per_epoch), label="batches before a stop") for _ in range(3)]
    unbroken = drawn(whole, sum(pieces))

    resumed: list[list[tuple[str, int]]] = []
    state = SampleStream(mixture, **options).state_dict()
    for batches in pieces:
        ranks = data.draw(st.integers(1, 5), label="ranks")
        reading = {"readers": data.draw(st.integers(0, 4), label="readers"), "prefetch": data.draw(st.integers(0, 5))}
        streams = [SampleStream(mixture, rank=rank, world_size=ranks, **reading, **options) for rank in range(ranks)]
        for stream in streams:
            stream.load_state_dict(state)
        per_rank = [drawn(stream, batches) for stream in streams]
        states = [stream.state_dict() for stream in streams]
        assert all(other == states[0] for other in states)
        state = states[0]
        for step in zip(*per_rank, strict=True):  # R2: as many on every rank, of one dataset
            assert len({(batch.name, batch.epoch, batch.batch, batch.rows) for batch in step}) == 1
            assert tuple(len(batch.images) for batch in step) == step[0].rows
            resumed.append(identities(step))
    assert resumed == [identities([batch]) for batch in unbroken]


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_samples_shards_and_lanes_are_shown_once_an_epoch_however_it_is_interrupted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    samples = data.draw(st.integers(1, 50), label="samples")
    folder = tmp_path_factory.mktemp("set") / "toy"
    shard_bytes = data.draw(st.sampled_from([1, 15_000, 40_000, 1 << 20]), label="bytes of a shard")
    manifest = write_dataset(toy_source({"train": samples}), folder, shard_bytes=shard_bytes)
    empty = data.draw(st.lists(st.integers(0, len(manifest.splits["train"].shards)), max_size=2), label="empty shards")
    with_an_empty_shard(folder, manifest, places=empty)
    lanes = st.builds(Locality, lanes=st.integers(1, 6), window=st.integers(1, 20))
    options = {"batch_size": data.draw(st.integers(1, 12)), "seed": 1, "locality": data.draw(st.none() | lanes)}
    left = SampleStream([ShardedDataset(folder, "train")], **options).batches_per_epoch
    state = SampleStream([ShardedDataset(folder, "train")], **options).state_dict()
    shown: list[int] = []
    while left:
        ranks = data.draw(st.integers(1, 6), label="ranks")
        batches = data.draw(st.integers(1, left), label="batches before a stop")
        reading = {"readers": data.draw(st.integers(0, 8), label="readers"), "world_size": ranks}
        streams = [
            SampleStream([ShardedDataset(folder, "train")], rank=rank, **reading, **options) for rank in range(ranks)
        ]
        for stream in streams:
            stream.load_state_dict(state)
            own = drawn(stream, batches)
            assert len(own) == batches
            shown += [sample for _, sample in identities(own)]
        state = streams[0].state_dict()
        left -= batches
    assert sorted(shown) == list(range(samples)) and state["epoch"] == 1


def test_rows_carry_the_pixels_and_labels_of_their_sample(datasets: dict[str, ShardedDataset]) -> None:
    everything = datasets["many"].read(np.arange(41))
    stream = SampleStream([datasets["many"]], batch_size=6, seed=3, rank=1, world_size=2)
    for batch in drawn(stream, stream.batches_per_epoch):
        rows = batch.sample_B.numpy()
        assert (batch.images.numpy() == everything.stacked[rows]).all()
        assert (batch.label_BL.numpy() == everything.label_BL[rows]).all()
        assert (batch.spacing_mm_BA.numpy() == np.float32(0.7)).all()


def test_more_ranks_than_samples_leave_some_ranks_empty_but_in_step(datasets: dict[str, ShardedDataset]) -> None:
    streams = [SampleStream([datasets["one"]], batch_size=8, seed=0, rank=r, world_size=3) for r in range(3)]
    batches = [drawn(stream, 2) for stream in streams]
    assert [tuple(rank[0].images.shape) for rank in batches] == [(0, 1, 4, 5), (0, 1, 4, 5), (1, 1, 4, 5)]
    assert batches[0][0].rows == (0, 0, 1) and batches[0][0].global_size == 1


def test_546_samples_in_batches_of_128_make_five_of_109_or_110() -> None:
    plan = BatchPlan([Share("breast", 546)], batch_size=128, seed=0)
    sizes = sorted(len(plan.global_batch(0, position).sample_B) for position in range(plan.batches_per_epoch))
    assert sizes == [109, 109, 109, 109, 110]


def test_epochs_and_seeds_differ_in_order() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        plan = BatchPlan([Share("set", 100)], batch_size=100, seed=seed)
        return plan.global_batch(epoch, 0).sample_B.tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


def test_reading_ahead_does_not_move_the_state(datasets: dict[str, ShardedDataset]) -> None:
    stream = SampleStream([datasets["many"]], batch_size=4, seed=0, prefetch=3)
    iterator = iter(stream)
    assert stream.state == StreamState(0, 0)
    for count in range(1, 15):
        next(iterator)
        assert stream.state == StreamState(*divmod(count, 11))
    assert stream.batches_per_epoch == 11


def test_a_state_of_another_order_is_refused(datasets: dict[str, ShardedDataset]) -> None:
    state = SampleStream([datasets["many"]], batch_size=4, seed=0).state_dict()
    for other in (
        SampleStream([datasets["many"]], batch_size=5, seed=0),
        SampleStream([datasets["many"]], batch_size=4, seed=1),
        SampleStream([datasets["seven"]], batch_size=4, seed=0),
        SampleStream([datasets["many"], datasets["one"]], batch_size=4, seed=0),
    ):
        with pytest.raises(CheckpointError, match="another seed, batch size, dataset, weight or curriculum"):
            other.load_state_dict(state)
    SampleStream([datasets["many"]], batch_size=4, seed=0, rank=2, world_size=7).load_state_dict(state)


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


@pytest.mark.parametrize("readers", [1, 3])
def test_an_abandoned_iterator_leaves_no_thread(datasets: dict[str, ShardedDataset], readers: int) -> None:
    stream = SampleStream([datasets["many"]], batch_size=4, seed=0, readers=readers, prefetch=4)
    iterator: Iterator[Batch] | None = iter(stream)
    assert iterator is not None
    next(iterator)
    assert 1 <= len(_threads()) <= readers
    iterator = None
    assert not _threads()


def test_a_damaged_shard_stops_the_consumer_with_its_name(tmp_path: Path) -> None:
    write_dataset(toy_source({"train": 20}), tmp_path / "toy")
    shard = tmp_path / "toy" / "toy-train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[512 + 128] ^= 1
    shard.write_bytes(content)
    stream = SampleStream([ShardedDataset(tmp_path / "toy", "train")], batch_size=5, seed=0)
    with pytest.raises(DataError, match="toy-train-000000.tar.*sample train-00000 "):
        drawn(stream, stream.batches_per_epoch)
    assert not _threads()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"readers": -1}, "readers, prefetch and lookahead are numbers from 0 on"),
        ({"prefetch": -1}, "readers, prefetch and lookahead are numbers from 0 on"),
        ({"reader_kind": "fibre"}, "reader_kind 'fibre'; expected thread or process"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"weights": [1.0, 2.0]}, "one positive number"),
        ({"weights": [-1.0]}, "one positive number"),
        ({"weights": [float("nan")]}, "one positive number"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    datasets: dict[str, ShardedDataset], options: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        SampleStream([datasets["seven"]], **({"batch_size": 4, "seed": 0} | options))


def test_a_weight_too_small_for_a_single_batch_is_refused_rather_than_dropping_the_dataset() -> None:
    with pytest.raises(ConfigError, match="b: weight 0.001 is too small: none of the 11 batches"):
        apportion(11, [1.0, 0.001], ["a", "b"])


def test_a_dataset_given_twice_is_refused(datasets: dict[str, ShardedDataset]) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        SampleStream([datasets["seven"], datasets["seven"]], batch_size=2, seed=0)


def test_planes_and_volumes_of_different_sizes_mix_with_one_geometry_in_each_batch(tmp_path: Path) -> None:
    shapes = {"planes": (3, 28, 28), "slabs": (1, 9, 12, 14), "cubes": (1, 16, 16, 16)}
    for name, shape in shapes.items():
        write_dataset(toy_source({"train": 11}, name=name, shape=shape), tmp_path / name)
    mixture = [ShardedDataset(tmp_path / name, "train") for name in shapes]
    stream = SampleStream(mixture, batch_size=4, seed=0, readers=2)
    batches = drawn(stream, stream.batches_per_epoch)
    assert sorted(identities(batches)) == sorted((name, place) for name in shapes for place in range(11))
    for batch in batches:
        dataset = mixture[batch.dataset]
        assert tuple(batch.images.shape[1:]) == shapes[batch.name]
        assert batch.spacing_mm_BA.shape[1] == batch.images.ndim - 2
        assert (batch.images.numpy() == dataset.read(batch.sample_B.numpy()).stacked).all()


def test_a_dataset_of_mixed_sizes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    samples = [toy_sample(str(n), pixels=np.zeros((1, 3 + n, 4), np.uint8)) for n in range(2)]
    write_dataset(Listed(samples, card()), tmp_path / "toy")
    with pytest.raises(ConfigError, match="a batch holds one geometry: build the shards again with prepare.size"):
        SampleStream([ShardedDataset(tmp_path / "toy", "train")], batch_size=2, seed=0)


def test_two_images_of_the_same_studies_are_two_datasets_of_a_mixture(tmp_path: Path) -> None:
    samples = []
    for number in range(12):
        images = {"mri": Image(np.full((1, 4, 4), number, np.uint8))}
        if number % 3:
            images["pet"] = Image(np.full((1, 2, 2), number, np.uint8))
        samples.append(Sample(str(number), images, Organ.brain, f"s{number}", "train"))
    write_dataset(Listed(samples, card()), tmp_path / "toy", shard_bytes=4000)
    mixture = [ShardedDataset(tmp_path / "toy", "train", image=image) for image in ("mri", "pet")]
    stream = SampleStream(mixture, batch_size=3, seed=0)
    shown: dict[int, list[int]] = {0: [], 1: []}
    for batch in drawn(stream, stream.batches_per_epoch):
        shown[batch.dataset] += batch.images[:, 0, 0, 0].tolist()
    assert sorted(shown[0]) == list(range(12)) and sorted(shown[1]) == [n for n in range(12) if n % 3]
    only = SampleStream(mixture[1:], batch_size=3, seed=0)
    with pytest.raises(CheckpointError):
        only.load_state_dict(SampleStream(mixture[:1], batch_size=3, seed=0).state_dict())


def test_attributes_come_with_the_batch(tmp_path: Path) -> None:
    samples = [
        Sample(
            str(n), {"image": Image(np.full((1, 2, 2), n))}, Organ.brain, f"s{n}", "train", attributes={"age": n + 0.5}
        )
        for n in range(5)
    ]
    write_dataset(Listed(samples, card()), tmp_path / "toy")
    batch = next(iter(SampleStream([ShardedDataset(tmp_path / "toy", "train")], batch_size=5, seed=0)))
    assert batch.attributes["age"].tolist() == [place + 0.5 for place in batch.sample_B.tolist()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device pinned memory is not refused")
def test_pinned_memory_without_a_device_is_refused_with_the_reason(datasets: dict[str, ShardedDataset]) -> None:
    with pytest.raises(ConfigError, match="pin_memory is for copies to a CUDA device"):
        SampleStream([datasets["seven"]], batch_size=4, seed=0, pin_memory=True)


@pytest.mark.gpu
@pytest.mark.parametrize("reader_kind", ["thread", "process"])
def test_batches_come_in_pinned_memory(datasets: dict[str, ShardedDataset], reader_kind: str) -> None:
    stream = SampleStream([datasets["many"]], batch_size=4, seed=0, reader_kind=reader_kind, pin_memory=True)
    for batch in drawn(stream, 3):
        assert batch.images.is_pinned() and batch.label_BL.is_pinned()
        assert (batch.images.numpy() == datasets["many"].read(batch.sample_B.numpy()).stacked).all()
