"""BrainFuse: images between two images, learned without labels, and brains fused of several subjects.

The source slides name the method and give a table; no paper and no code of it is public. What is here is our reading.
"""

from pretrain.brainfuse.fusion import fused, mean_fused
from pretrain.brainfuse.generator import Generator, GeneratorConfig

__all__ = ["Generator", "GeneratorConfig", "fused", "mean_fused"]
