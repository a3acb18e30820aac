"""Adapting a pretrained backbone to a few labels, and measuring honestly what that gives."""
