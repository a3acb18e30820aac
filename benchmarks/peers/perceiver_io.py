"""Training steps of krasserm's perceiver-io; run by an interpreter that has it.

``python perceiver_io.py SETTING`` builds the model of the setting, a JSON document, and prints what a step takes.
"""

from perceiver.model.core.adapter import ClassificationOutputAdapter, InputAdapter, TrainableQueryProvider
from perceiver.model.core.modules import PerceiverDecoder, PerceiverEncoder, PerceiverIO
from steps import measure
from torch import Tensor


class Tokens(InputAdapter):
    """Tokens are made before; nothing is left to do."""

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        """The tokens."""
        return tokens_BTC


def build(setting: dict[str, int]) -> PerceiverIO:
    """Encoder with one cross-attention and a shared block, decoder with one query."""
    dim = setting["dim"]
    encoder = PerceiverEncoder(
        Tokens(setting["channels"]),
        num_latents=setting["latents"],
        num_latent_channels=dim,
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=setting["channels"],
        num_self_attention_heads=setting["heads"],
        num_self_attention_layers_per_block=setting["layers"],
        num_self_attention_blocks=setting["repeats"],
    )
    decoder = PerceiverDecoder(
        ClassificationOutputAdapter(setting["classes"], dim),
        TrainableQueryProvider(1, dim),
        num_latent_channels=dim,
        num_cross_attention_heads=1,
    )
    return PerceiverIO(encoder, decoder)


if __name__ == "__main__":
    measure(build)
