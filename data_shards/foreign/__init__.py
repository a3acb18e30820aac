"""Tars that other software wrote: their members, decoded and indexed where they lie."""
