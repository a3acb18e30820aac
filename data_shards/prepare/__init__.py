"""What can be done to samples between the archive and the shards: resample, cut, bring to one size, 8 bits."""

from data_shards.prepare.document import Intensity, Preparation
from data_shards.prepare.prepared import Prepared

__all__ = ["Intensity", "Preparation", "Prepared"]
