"""Roof: order, retries, concurrency and the command line. No arithmetic."""
