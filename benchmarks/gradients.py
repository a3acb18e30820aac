"""How far the gradient of a distributed loss is from that of one process, ours and those of three libraries."""

from __future__ import annotations

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from lightly.loss import BarlowTwinsLoss, DINOLoss, NTXentLoss, SwaVLoss
from torch import Tensor, nn

from benchmarks.gradient_peers import Loss, solo_learn, stable_pretraining
from benchmarks.table import Table
from pretrain.objectives.barlow_twins import barlow_twins_loss
from pretrain.objectives.collectives import all_reduce_sum
from pretrain.objectives.prototypes import sinkhorn
from pretrain.objectives.reduction import global_mean
from pretrain.objectives.simclr import nt_xent

ROWS, WIDTH, PROTOTYPES = 32, 16, 12
SETTINGS = (("equal distributions", 2, 0.0), ("ranks differ", 2, 1.0), ("ranks differ", 4, 1.0))


def run() -> Table:
    """Relative error and cosine of the gradient of a linear layer, averaged over the ranks as DDP and DeepSpeed do."""
    rows = []
    for setting, world_size, shift in SETTINGS:
        found = _distributed(world_size, shift)
        for loss in LOSSES:
            for library in LOSSES[loss]:
                truth = _gradient(loss, library, _global(world_size, shift), (ROWS * world_size,))
                mean = found[f"{loss} {library}"]
                error = float((mean - truth).norm() / truth.norm())
                cosine = float(nn.functional.cosine_similarity(mean.flatten(), truth.flatten(), dim=0))
                rows.append((loss, f"{setting}, {world_size} ranks", _named(library), f"{error:.1e}", f"{cosine:.4f}"))
    return Table(
        title="Gradient of a distributed loss against one process on the concatenated batch",
        command="PYTHON -m benchmarks gradients",
        columns=("loss", "data", "library", "relative error", "cosine"),
        rows=tuple(rows),
        remarks=f"gloo, float64, {ROWS} images per rank, {WIDTH} channels; each against the same library in one "
        "process. Where ranks differ, rank r sees x (1 + r) + r: a strong site effect. The libraries standardise "
        "Barlow Twins per rank, lightly by design; sums over ranks are switched on where there is a switch. SwAV: "
        f"{PROTOTYPES} fixed prototypes, three iterations. DINO: the second step, whose centre is of the first, and a "
        "fixed head. The libraries keep some of it in float32. solo-learn is of its repository (April 2026); "
        "PYTHON has it and stable-pretraining, which are left out where they are missing.",
    )


def _named(library: str) -> str:
    if library == "ours":
        return "medformer"
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:  # a checkout
        return library


def _fixed(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(PROTOTYPES, channels, generator=generator, dtype=torch.float64)


def _cosines(z_BD: Tensor) -> Tensor:
    return F.normalize(z_BD, dim=1) @ F.normalize(_fixed(z_BD.shape[1]), dim=1).T


def _our_swav(za: Tensor, zb: Tensor, rows: tuple[int, ...]) -> Tensor:
    cosines = [_cosines(z) for z in (za, zb)]
    targets = [sinkhorn(each.detach(), 0.05, 3, sum(rows)) for each in cosines]
    predicted = [torch.log_softmax(each / 0.1, dim=1) for each in cosines]
    losses = [-(targets[one] * predicted[1 - one]).sum(dim=1) for one in range(2)]
    return global_mean(torch.stack(losses).mean(dim=0), sum(rows))


def _our_dino(za: Tensor, zb: Tensor, rows: tuple[int, ...]) -> Tensor:
    said = [z @ _fixed(z.shape[1]).T for z in (za, zb)]
    with torch.no_grad():
        centre_K = 0.1 * all_reduce_sum(torch.stack(said).mean(dim=0).sum(dim=0)) / sum(rows)
        targets = [torch.softmax((each - centre_K) / 0.04, dim=1) for each in said]
    predicted = [torch.log_softmax(each / 0.1, dim=1) for each in said]
    losses = [-(targets[one] * predicted[1 - one]).sum(dim=1) for one in range(2)]
    return global_mean(torch.stack(losses).mean(dim=0), sum(rows))


def _lightly_swav(za: Tensor, zb: Tensor, rows: tuple[int, ...]) -> Tensor:
    criterion = SwaVLoss(temperature=0.1, sinkhorn_gather_distributed=len(rows) > 1)
    found: Tensor = criterion([_cosines(za), _cosines(zb)], [])
    return found


def _lightly_dino(za: Tensor, zb: Tensor, rows: tuple[int, ...]) -> Tensor:
    criterion = DINOLoss(output_dim=PROTOTYPES, teacher_temp=0.04, student_temp=0.1).double()
    said = [z @ _fixed(z.shape[1]).T for z in (za, zb)]
    criterion([each.detach() for each in said], said)  # It moves the centre.
    found: Tensor = criterion([each.detach() for each in said], said)
    return found


LOSSES: dict[str, dict[str, Loss]] = {
    "Barlow Twins": {
        "ours": lambda za, zb, rows: torch.stack(barlow_twins_loss(za, zb, 0.005, sum(rows))).sum(),
        "lightly": lambda za, zb, rows: BarlowTwinsLoss(gather_distributed=len(rows) > 1)(za, zb),
    },
    "NT-Xent": {
        "ours": lambda za, zb, rows: nt_xent(za, zb, 0.5, rows),
        "lightly": lambda za, zb, rows: NTXentLoss(gather_distributed=len(rows) > 1)(za, zb),
    },
    "SwAV": {"ours": _our_swav, "lightly": _lightly_swav},
    "DINO": {"ours": _our_dino, "lightly": _lightly_dino},
}
for _library, _losses in (
    ("solo-learn", solo_learn(_fixed(WIDTH))),
    ("stable-pretraining", stable_pretraining(_fixed(WIDTH))),
):
    for _name, _loss in _losses.items():
        LOSSES[_name][_library] = _loss


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
    LOSSES[loss][library](layer(views[0]), layer(views[1]), rows).backward()
    assert layer.weight.grad is not None
    return layer.weight.grad


def _distributed(world_size: int, shift: float) -> dict[str, Tensor]:
    """The gradient of every loss of both libraries, the mean over ranks."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_work, (world_size, folder, shift), nprocs=world_size)
        found: dict[str, Tensor] = torch.load(Path(folder) / "mean.pt", weights_only=True)
        return found


def _work(rank: int, world_size: int, folder: str, shift: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    means = {}
    for loss, libraries in LOSSES.items():
        for library in libraries:
            gradient = _gradient(loss, library, _views(rank, shift), (ROWS,) * world_size)
            dist.all_reduce(gradient)
            means[f"{loss} {library}"] = gradient / world_size
    if rank == 0:
        torch.save(means, Path(folder) / "mean.pt")
    dist.barrier()
    dist.destroy_process_group()
