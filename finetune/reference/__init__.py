"""The reference recipe of MedMNIST: the baseline that new models are compared with."""
