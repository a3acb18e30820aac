"""Where the files of a dataset lie: a folder of this machine, or any URL through a cache on the node.

A reader asks a :class:`Storage` for a file by name and gets a :class:`Lease`: a path on this node whose content is
complete, and which stays there until the lease is released.
"""

from data_shards.storage.base import Lease, Storage, StoredFile
from data_shards.storage.cache import Cache
from data_shards.storage.opening import open_storage
from data_shards.storage.transfer import Retries

__all__ = ["Cache", "Lease", "Retries", "Storage", "StoredFile", "open_storage"]
