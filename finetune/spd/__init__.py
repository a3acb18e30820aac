"""Layers on symmetric positive definite matrices: covariance pooling, eigen-functions, the Stiefel manifold."""
