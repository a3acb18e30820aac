"""Exports of the ADNI archive: its folders, tables and sidecars."""
