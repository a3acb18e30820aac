"""Our Perceiver IO against transformers' and krasserm's: time and memory of a training step on the CPU."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.peers.steps import measure
from benchmarks.perceiver_io import PerceiverDecoder, PerceiverEncoder
from benchmarks.readers import PEERS
from benchmarks.table import Table

REPEATS = 5
PRECISIONS = ("fp32", "bf16")
SETTINGS = {
    "784 tokens, 64 latents x 256, 4 layers": {
        "batch": 8, "tokens": 784, "channels": 64, "latents": 64, "dim": 256, "layers": 4, "repeats": 1, "heads": 8,
        "classes": 10, "steps": 20,
    },
    "3,136 tokens, 256 latents x 512, 6 layers twice": {
        "batch": 4, "tokens": 3136, "channels": 261, "latents": 256, "dim": 512, "layers": 6, "repeats": 2, "heads": 8,
        "classes": 1000, "steps": 3,
    },
    "the published vision model: 50,176 tokens, 512 latents x 1024, 6 layers 8 times": {
        "batch": 1, "tokens": 50176, "channels": 261, "latents": 512, "dim": 1024, "layers": 6, "repeats": 8,
        "heads": 8, "classes": 1000, "steps": 1,
    },
    "medformer_tiny's on 96^3: 13,824 tokens, 72 latents x 192, 12 layers": {
        "batch": 4, "tokens": 13824, "channels": 192, "latents": 72, "dim": 192, "layers": 12, "repeats": 1, "heads": 3,
        "classes": 10, "steps": 5,
    },
    "medformer_small's on 96^3: 13,824 tokens, 136 latents x 384, 12 layers": {
        "batch": 2, "tokens": 13824, "channels": 384, "latents": 136, "dim": 384, "layers": 12, "repeats": 1,
        "heads": 6, "classes": 10, "steps": 5,
    },
    "medformer_base's on 96^3: 1,728 tokens, 200 latents x 768, 12 layers": {
        "batch": 4, "tokens": 1728, "channels": 768, "latents": 200, "dim": 768, "layers": 12, "repeats": 1,
        "heads": 12, "classes": 10, "steps": 3,
    },
}  # fmt: skip
_KRASSERM = Path(__file__).with_name("peers") / "perceiver_io.py"


class Ours(nn.Module):
    """Encoder with one cross-attention and a shared block, decoder with one query."""

    def __init__(self, setting: dict[str, int]) -> None:
        super().__init__()
        dim = setting["dim"]
        self.latents = nn.Parameter(torch.randn(setting["latents"], dim))
        self.query = nn.Parameter(torch.randn(1, dim))
        self.encoder = PerceiverEncoder(
            dim, setting["channels"], layers=setting["layers"], repeats=setting["repeats"], heads=setting["heads"]
        )
        self.decoder = PerceiverDecoder(dim, dim, out_dim=setting["classes"])

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        """Logits ``B, classes``."""
        latents_BND = self.encoder(self.latents[None], tokens_BTC)
        return self.decoder(self.query[None], latents_BND)[:, 0]


class Transformers(nn.Module):
    """The same model by ``transformers``."""

    def __init__(self, setting: dict[str, int]) -> None:
        super().__init__()
        from transformers import PerceiverConfig, PerceiverModel
        from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder

        config = PerceiverConfig(
            num_latents=setting["latents"],
            d_latents=setting["dim"],
            d_model=setting["channels"],
            num_blocks=setting["repeats"],
            num_self_attends_per_block=setting["layers"],
            num_self_attention_heads=setting["heads"],
            num_cross_attention_heads=1,
            num_labels=setting["classes"],
            attention_probs_dropout_prob=0.0,
        )
        decoder = PerceiverClassificationDecoder(
            config,
            num_channels=setting["dim"],
            trainable_position_encoding_kwargs={"num_channels": setting["dim"], "index_dims": 1},
            use_query_residual=True,
        )
        self.model = PerceiverModel(config, decoder=decoder)

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        """Logits ``B, classes``."""
        return self.model(tokens_BTC).logits


def run() -> Table:
    """Medians over fresh processes that alternate, so that drift hits all alike."""
    here = [sys.executable, "-m", "benchmarks.perceivers"]
    programs = {
        "medformer": [*here, "medformer"],
        f"transformers {version('transformers')}": [*here, "transformers"],
    }
    if python := os.environ.get(PEERS):
        programs[f"perceiver-io {_version(python)} (krasserm)"] = [python, str(_KRASSERM)]
    else:
        print(f"benchmarks: {PEERS} is not set: perceiver-io is left out", file=sys.stderr)
    rows = []
    for (title, setting), precision in itertools.product(SETTINGS.items(), PRECISIONS):
        arguments = json.dumps({**setting, "threads": torch.get_num_threads(), "bf16": precision == "bf16"})
        found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
        for _ in range(REPEATS):
            for name, command in programs.items():
                found[name].append(json.loads(_output([*command, arguments])))
        if len({figures["parameters"] for repeats in found.values() for figures in repeats}) > 1:
            raise RuntimeError(f"{title}: the models do not have the same number of parameters")
        medians = {
            name: {key: statistics.median(figures[key] for figures in repeats) for key in repeats[0]}
            for name, repeats in found.items()
        }
        ours = medians["medformer"]
        rows += [
            (
                title,
                precision,
                name,
                f"{median['parameters']:,.0f}",
                f"{median['seconds'] * 1e3:,.1f}",
                f"{median['seconds'] / ours['seconds']:.2f}",
                f"{median['kib'] / 1024:,.0f}",
                f"{median['kib'] / ours['kib']:.2f}",
            )
            for name, median in medians.items()
        ]
    return Table(
        title="A training step of a Perceiver IO on the CPU",
        command=f"{PEERS}=PYTHON python -m benchmarks perceivers",
        columns=(
            "model",
            "precision",
            "library",
            "parameters",
            "step, ms",
            "of medformer's",
            "peak memory, MiB",
            "of medformer's",
        ),
        rows=tuple(rows),
        remarks=f"fp32 is float32, bf16 is autocast to bfloat16; {torch.get_num_threads()} threads; forward and "
        f"backward, no dropout; medians over {REPEATS} fresh processes of each library, in turn. Memory is how far the "
        "peak of the process during the steps is above "
        "what it held before. Batches of "
        + ", ".join(str(setting["batch"]) for setting in SETTINGS.values())
        + ". perceiver-io runs by "
        "the interpreter of an environment with benchmarks/peers/perceiver_io.txt.",
    )


def _output(command: list[str]) -> str:
    root = Path(__file__).parents[1]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()[-1]


def _version(python: str) -> str:
    return _output([python, "-c", "from importlib.metadata import version; print(version('perceiver-io'))"])


if __name__ == "__main__":
    measure({"medformer": Ours, "transformers": Transformers}[sys.argv[1]])
