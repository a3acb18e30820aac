"""Fitting: features, learners, the training loop, schedules, and the linear optimum."""
