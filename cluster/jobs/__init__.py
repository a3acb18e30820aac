"""Pretraining as jobs of a Ray cluster: packed here, sent over HTTP, run there without the terminal that sent them."""
