"""Evaluation: the same agent with and without imagination."""
