"""Networks that others wrote, as backbones: any of timm by name, and volumetric ones built of timm's blocks.

They are what a user would pick instead of ours, so they run in every arm of every comparison. They are told nothing of
an image but its pixels: organ, modality, task and spacing are for networks that ask for them.
"""

from __future__ import annotations

from pretrain.foreign.create import create_foreign
from pretrain.foreign.reference import NetworkReference, is_network, own_networks, parse_network
from pretrain.foreign.timm_backbone import TimmBackbone

__all__ = ["NetworkReference", "TimmBackbone", "create_foreign", "is_network", "own_networks", "parse_network"]
