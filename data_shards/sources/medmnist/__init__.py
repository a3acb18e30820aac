"""The archives of MedMNIST."""
