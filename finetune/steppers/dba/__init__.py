"""Dynamic batch adaptation: which samples of a batch each layer learns from, and how large the next batches are."""

from finetune.steppers.dba.stepper import DbaStepper

__all__ = ["DbaStepper"]
