"""What can be done to samples between the archive and the shards: resample, cut, one size, 8 bits or a rule."""

from data_shards.prepare.document import Intensity, Preparation
from data_shards.prepare.prepared import Prepared
from data_shards.prepare.ruled import Ruled, Storing

__all__ = ["Intensity", "Preparation", "Prepared", "Ruled", "Storing"]
