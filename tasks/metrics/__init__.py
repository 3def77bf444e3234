"""Metrics, one file a family: pure functions on arrays, no disk."""
