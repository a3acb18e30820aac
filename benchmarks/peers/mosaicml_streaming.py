"""Reads 28x28 images with labels by MosaicML Streaming; run by an interpreter that has it.

``python mosaicml_streaming.py write FOLDER IMAGES.npy`` makes the dataset, ``... read FOLDER BATCH`` reads it once,
shuffled, and prints samples per second.
"""

import sys
import time

import numpy as np
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader


def write(folder: str, images: str) -> None:
    """Store the images with their position's parity as label."""
    pixels = np.load(images, mmap_mode="r")
    shape = ",".join(map(str, pixels.shape[1:]))
    columns = {"image": f"ndarray:uint8:{shape}", "label": "int64"}
    with MDSWriter(out=folder, columns=columns, size_limit=1 << 26) as writer:
        for position, image in enumerate(pixels):
            writer.write({"image": np.asarray(image), "label": np.int64(position % 2)})


def read(folder: str, batch: int) -> None:
    """One shuffled epoch through the loader of torch, as its documentation shows."""
    clean_stale_shared_memory()
    dataset = StreamingDataset(local=folder, shuffle=True, batch_size=batch)
    loader = DataLoader(dataset, batch_size=batch, num_workers=0)
    started_s = time.perf_counter()
    count = sum(len(images["image"]) for images in loader)
    print(count / (time.perf_counter() - started_s))


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], sys.argv[3])
    else:
        read(sys.argv[2], int(sys.argv[3]))
