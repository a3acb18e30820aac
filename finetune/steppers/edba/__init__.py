"""Efficient dynamic batch adaptation: one subset of the batch for all layers, chosen by the last one."""

from finetune.steppers.edba.stepper import EdbaStepper

__all__ = ["EdbaStepper"]
