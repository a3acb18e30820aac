"""The published vision and language models of Perceiver IO (Jaegle et al., ICLR 2022, sections 4.1 and 4.4).

Their weights, as ``transformers`` stores them, load through :func:`from_transformers`::

    model = FourierClassifier()
    model.load_state_dict(from_transformers(load_file("model.safetensors")))

Shapes: ``B`` samples, ``T`` tokens of ``C`` channels, ``N`` latents of ``D`` channels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmarks.perceiver_io import PerceiverDecoder, PerceiverEncoder
from pretrain.backbone.position import FourierPosition


def fourier_tokens(images_BCS: Tensor, bands: int, resolution: int) -> Tensor:
    """Every pixel or voxel as a token: its intensities, then Fourier features of its place.

    Coordinates run from -1 at the first to 1 at the last pixel of each axis, frequencies from 1 to the Nyquist
    frequency ``resolution / 2`` (Perceiver, Jaegle et al., ICML 2021, section 3.2). The features are made in float32
    whatever the precision of the images: half precision cannot hold their phases.

    Args:
        images_BCS: ``B, C`` and one axis or more.
        bands: frequencies per axis.
        resolution: pixels along an axis for which the highest frequency is Nyquist's.

    Returns:
        ``B, T, C + axes * (2 * bands + 1)``, rows in row-major order.
    """
    device = images_BCS.device
    axes = [torch.linspace(-1.0, 1.0, length, device=device) for length in images_BCS.shape[2:]]
    coordinates_TA = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    position = FourierPosition(len(axes), bands, resolution / 2).to(device)
    places_TF = position(coordinates_TA).to(images_BCS.dtype)
    pixels_BTC = images_BCS.flatten(2).transpose(1, 2)
    return torch.cat([pixels_BTC, places_TF.expand(len(images_BCS), -1, -1)], dim=-1)


class FourierClassifier(nn.Module):
    """ImageNet classifier on pixels with 2D Fourier features; the defaults are the published model.

    Args:
        num_classes: outputs.
        in_chans: channels of the images.
        bands: frequencies per axis.
        resolution: see :func:`fourier_tokens`; images of any size are accepted.
        latents: number of latents.
        dim: channels of the latents and of the output query.
        layers: self-attention layers of the block.
        repeats: applications of the block, with the same weights.
        heads: heads of the self-attention; the cross-attentions have one.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        bands: int = 64,
        resolution: int = 224,
        latents: int = 512,
        dim: int = 1024,
        layers: int = 6,
        repeats: int = 8,
        heads: int = 8,
    ) -> None:
        super().__init__()
        self.bands = bands
        self.resolution = resolution
        self.latents = nn.Parameter(torch.empty(latents, dim))
        self.encoder = PerceiverEncoder(
            dim, in_chans + 2 * (2 * bands + 1), layers=layers, repeats=repeats, heads=heads
        )
        self.query = nn.Parameter(torch.empty(1, dim))
        self.decoder = PerceiverDecoder(dim, dim, out_dim=num_classes)
        _initialise(self)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits ``B, num_classes`` of normalised images.

        Raises:
            ValueError: the images do not have the axes ``B,C,H,W``.
        """
        if images_BCHW.ndim != 4:
            raise ValueError(f"expected images B,C,H,W, found shape {tuple(images_BCHW.shape)}")
        tokens_BTC = fourier_tokens(images_BCHW, self.bands, self.resolution)
        latents_BND = self.encoder(self.latents[None], tokens_BTC)
        return self.decoder(self.query[None], latents_BND)[:, 0]


class MaskedLanguageModel(nn.Module):
    """Masked language model on bytes; the defaults are the published model (UTF-8 bytes, base).

    Args:
        vocabulary: bytes and special tokens.
        positions: longest text.
        token_dim: channels of the embedded bytes and of the output queries.
        latents: number of latents.
        dim: channels of the latents.
        layers: self-attention layers.
        heads: heads of every attention.
        qk_dim: total width of queries and keys in every attention.
    """

    def __init__(
        self,
        vocabulary: int = 262,
        positions: int = 2048,
        token_dim: int = 768,
        latents: int = 256,
        dim: int = 1280,
        layers: int = 26,
        heads: int = 8,
        qk_dim: int = 256,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, token_dim)
        self.position = nn.Parameter(torch.empty(positions, token_dim))
        self.latents = nn.Parameter(torch.empty(latents, dim))
        self.encoder = PerceiverEncoder(
            dim,
            token_dim,
            layers=layers,
            cross_heads=heads,
            heads=heads,
            cross_qk_dim=qk_dim,
            cross_v_dim=dim,
            qk_dim=qk_dim,
            v_dim=dim,
        )
        self.query = nn.Parameter(torch.empty(positions, token_dim))
        self.decoder = PerceiverDecoder(
            token_dim, dim, heads=heads, qk_dim=qk_dim, v_dim=token_dim, query_residual=False
        )
        self.bias = nn.Parameter(torch.empty(vocabulary))
        _initialise(self)
        nn.init.zeros_(self.bias)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Logits ``B, T, vocabulary``.

        Args:
            ids_BT: bytes and special tokens as integers.
            mask_BT: false, or 0 as tokenizers have it, where a token is padding; None for nowhere.

        Raises:
            ValueError: the text is longer than ``positions``.
        """
        length = ids_BT.shape[1]
        if length > len(self.position):
            raise ValueError(f"the text has {length} tokens, the model {len(self.position)} positions")
        tokens_BTC = self.embedding(ids_BT) + self.position[:length]
        mask_BT = None if mask_BT is None else mask_BT.bool()
        latents_BND = self.encoder(self.latents[None], tokens_BTC, mask_BT)
        outputs_BTC = self.decoder(self.query[None, :length], latents_BND)
        return nn.functional.linear(outputs_BTC, self.embedding.weight, self.bias)


def from_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``PerceiverForImageClassificationFourier`` or ``PerceiverForMaskedLM`` in the layout of ours.

    Args:
        state_dict: tensors by the names that ``transformers`` gives them.

    Returns:
        Tensors by our names, for :class:`FourierClassifier` or :class:`MaskedLanguageModel`. Projections that are one
        matrix here are joined; all others are the tensors that were given.

    Raises:
        KeyError: a name is not one of these models'.
    """
    parts: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name, tensor in state_dict.items():
        target, place = _target(name)
        parts[target][place] = tensor
    return {
        name: torch.cat([places[place] for place in sorted(places)]) if len(places) > 1 else places[0]
        for name, places in parts.items()
    }


_SINGLE = {
    "perceiver.embeddings.latents": "latents",
    "perceiver.input_preprocessor.embeddings.weight": "embedding.weight",
    "perceiver.input_preprocessor.position_embeddings.weight": "position",
    "perceiver.decoder.output_position_encodings.position_embeddings": "query",
    "perceiver.decoder.decoder.output_position_encodings.position_embeddings": "query",
    "perceiver.decoder.decoder.final_layer.weight": "decoder.project.weight",
    "perceiver.decoder.decoder.final_layer.bias": "decoder.project.bias",
    "embedding_decoder.bias": "bias",
}
_LAYER = re.compile(
    r"perceiver\.(?:encoder\.(?P<cross>cross_attention)|encoder\.self_attends\.(?P<index>\d+)"
    r"|(?:decoder\.)+decoding_cross_attention)\.(?P<part>.+)\.(?P<kind>weight|bias)"
)
_PARTS = {
    "attention.output.dense": ("attention.proj", 0),
    "layernorm": ("mlp.norm", 0),
    "mlp.dense1": ("mlp.fc1", 0),
    "mlp.dense2": ("mlp.fc2", 0),
}
_SELF_PARTS = _PARTS | {
    "attention.self.layernorm1": ("norm", 0),
    "attention.self.query": ("attention.qkv", 0),
    "attention.self.key": ("attention.qkv", 1),
    "attention.self.value": ("attention.qkv", 2),
}
_CROSS_PARTS = _PARTS | {
    "attention.self.layernorm1": ("norm_queries", 0),
    "attention.self.layernorm2": ("norm_context", 0),
    "attention.self.query": ("attention.q", 0),
    "attention.self.key": ("attention.kv", 0),
    "attention.self.value": ("attention.kv", 1),
}


def _target(name: str) -> tuple[str, int]:
    """Our name of a tensor, and its place among the tensors that are joined under it."""
    if name in _SINGLE:
        return _SINGLE[name], 0
    found = _LAYER.fullmatch(name)
    table = _SELF_PARTS if found and found["index"] else _CROSS_PARTS
    if not found or found["part"] not in table:
        raise KeyError(f"{name!r} is not a weight of the published Perceiver IO models")
    if found["index"]:
        layer = f"encoder.blocks.0.{found['index']}"
    else:
        layer = "encoder.cross.0" if found["cross"] else "decoder.cross"
    part, place = table[found["part"]]
    return f"{layer}.{part}.{found['kind']}", place


def _initialise(model: nn.Module) -> None:
    # Everything is drawn with a standard deviation of 0.02, as in the reference implementation.
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters(recurse=False):
        if name != "bias":
            nn.init.normal_(parameter, std=0.02)
