"""The page of one fine-tuning, made from nothing but what lies in its folder.

:mod:`~finetune.report.run.results` reads the folder, :mod:`~finetune.report.run.numbers` computes from the predictions
whatever the page says, :mod:`~finetune.report.run.words` says it, the others draw it.
"""
