"""Studies of the method on real images: several seeds, paired intervals, reported as they come out.

``python -m benchmarks.studies NAME FOLDER``: every run leaves its bundle in ``FOLDER``; a study that was interrupted
goes on with the runs that are missing.
"""
