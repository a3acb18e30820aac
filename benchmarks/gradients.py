"""How far the gradient of a distributed loss is from that of one process, ours and lightly's."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightly.loss import BarlowTwinsLoss, NTXentLoss
from torch import Tensor, nn

from benchmarks.table import Table
from pretrain.objectives.barlow_twins import barlow_twins_loss
from pretrain.objectives.simclr import nt_xent

ROWS, WIDTH = 32, 16
SETTINGS = (("equal distributions", 2, 0.0), ("ranks differ", 2, 1.0), ("ranks differ", 4, 1.0))


def run() -> Table:
    """Relative error and cosine of the gradient of a linear layer, averaged over the ranks as DDP and DeepSpeed do."""
    rows = []
    for setting, world_size, shift in SETTINGS:
        for loss in ("barlow", "ntxent"):
            truth = _gradient(loss, "ours", _global(world_size, shift), (ROWS * world_size,))
            for library in ("ours", "lightly"):
                found = _distributed(loss, library, world_size, shift)
                error = float((found - truth).norm() / truth.norm())
                cosine = float(nn.functional.cosine_similarity(found.flatten(), truth.flatten(), dim=0))
                name = "medformer" if library == "ours" else f"lightly {version('lightly')}"
                kind = "Barlow Twins" if loss == "barlow" else "NT-Xent"
                rows.append((kind, f"{setting}, {world_size} ranks", name, f"{error:.1e}", f"{cosine:.4f}"))
    return Table(
        title="Gradient of a distributed loss against one process on the concatenated batch",
        command="python -m benchmarks gradients",
        columns=("loss", "data", "library", "relative error", "cosine"),
        rows=tuple(rows),
        remarks=f"gloo, float64, {ROWS} images per rank, {WIDTH} channels. Where ranks differ, rank r sees "
        "x (1 + r) + r: a strong site effect. lightly standardises Barlow Twins per rank by design.",
    )


def _global(world_size: int, shift: float) -> Tensor:
    return torch.cat([_views(rank, shift) for rank in range(world_size)], dim=1)


def _views(rank: int, shift: float) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    base = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, ROWS, WIDTH, generator=generator, dtype=torch.float64)
    return (base + 0.5 * noise) * (1 + shift * rank) + shift * rank


def _gradient(loss: str, library: str, views: Tensor, rows: tuple[int, ...]) -> Tensor:
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, WIDTH, bias=False).double()
    za, zb = layer(views[0]), layer(views[1])
    if library == "ours":
        value = sum(barlow_twins_loss(za, zb, 0.005, sum(rows))) if loss == "barlow" else nt_xent(za, zb, 0.5, rows)
    else:
        several = len(rows) > 1
        theirs = BarlowTwinsLoss if loss == "barlow" else NTXentLoss
        value = theirs(gather_distributed=several)(za, zb)
    assert isinstance(value, Tensor)
    value.backward()
    assert layer.weight.grad is not None
    return layer.weight.grad


def _distributed(loss: str, library: str, world_size: int, shift: float) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_work, (world_size, folder, loss, library, shift), nprocs=world_size)
        return torch.load(Path(folder) / "mean.pt", weights_only=True)


def _work(rank: int, world_size: int, folder: str, loss: str, library: str, shift: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    gradient = _gradient(loss, library, _views(rank, shift), (ROWS,) * world_size)
    dist.all_reduce(gradient)
    if rank == 0:
        torch.save(gradient / world_size, Path(folder) / "mean.pt")
    dist.barrier()
    dist.destroy_process_group()
