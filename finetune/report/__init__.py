"""What came of a run, for reading: one self-contained HTML page and a table for the terminal.

:mod:`finetune.report.document` is what is reported, :mod:`finetune.report.page` and :mod:`finetune.report.terminal`
show it. Neither computes a result: they print the numbers they are given and say plainly what those allow one to say.
"""
