"""The estimators, and what they are made of: fitting, calibration, prediction, the saved form."""
