"""Faults on purpose: what a run does when processes, machines, servers and disks fail under it (``make chaos``)."""
