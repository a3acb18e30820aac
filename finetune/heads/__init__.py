"""Heads by name: small networks from what the backbone gives to logits."""

from finetune.heads.attention import AttentionHead
from finetune.heads.base import Head, create_head, head_names
from finetune.heads.linear import LinearHead

__all__ = ["AttentionHead", "Head", "LinearHead", "create_head", "head_names"]
