"""What a pretraining needs and how long it takes, before it is paid for: parameters, operations, memory, time.

Nothing is trained and no pixel is read: a step is followed on tensors that have shapes but no values. Only
:mod:`cluster.plan.measure`, when it is asked for, runs some steps.
"""
