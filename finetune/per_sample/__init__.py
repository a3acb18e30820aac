"""Exact gradients by sample: norms, inner products and weighted means, layer by layer, after one backward pass.

Activations and back-propagated gradients are taken where they pass through a layer; how a gradient by sample is made of
them is a rule, one small file for each kind of layer in :mod:`finetune.per_sample.rules`.
"""

from finetune.per_sample.layers import LayerGradients
from finetune.per_sample.rows import rows_of
from finetune.per_sample.rules import Whole, register_rule
from finetune.per_sample.tape import Tape

__all__ = ["LayerGradients", "Tape", "Whole", "register_rule", "rows_of"]
