"""A training loop as the pages of Ray Train show it, with Ray's defaults.

``python -m benchmarks.peers.ray_loop SETTINGS``: a JSON file with ``storage`` (a folder), ``steps`` (a file for the
number of each step taken) and ``network`` (arguments of the backbone).
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

EVERY = 10
BATCH = 16
"""Images of each worker."""


def loop(settings: dict[str, Any]) -> None:
    """On every worker: contrast two noisy views of random images; a checkpoint every ``EVERY`` steps."""
    import timm
    import torch
    from ray import train
    from ray.train.torch import get_device, prepare_model
    from torch.nn.functional import cross_entropy, normalize

    import pretrain.backbone  # noqa: F401 (makes the network known to timm)

    model = timm.create_model("medformer_nano", in_chans=1, num_classes=8, **settings["network"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step = 0
    if checkpoint := train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / "state.pt")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    network, device, leads = prepare_model(model), get_device(), train.get_context().get_world_rank() == 0
    while True:
        images = torch.rand(BATCH, 1, 28, 28, device=device)
        first, second = (normalize(network(images + 0.1 * torch.randn_like(images))) for _ in range(2))
        loss = cross_entropy(first @ second.T / 0.1, torch.arange(BATCH, device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if leads:
            with open(settings["steps"], "a") as file:
                file.write(f"{step}\n")
        if step % EVERY == 0:
            with tempfile.TemporaryDirectory() as folder:
                saved = None
                if leads:
                    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                    torch.save(state, Path(folder) / "state.pt")
                    saved = train.Checkpoint.from_directory(folder)
                train.report({"loss": loss.item()}, checkpoint=saved)


def main(path: str) -> None:
    """Train until the process is ended."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    settings = json.loads(Path(path).read_text())
    ray.init(address="local")
    TorchTrainer(
        loop,
        train_loop_config=settings,
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=settings["storage"], failure_config=FailureConfig(max_failures=10)),
    ).fit()


if __name__ == "__main__":
    main(sys.argv[1])
