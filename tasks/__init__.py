"""First floor: one verb per file - read, compute, write. Plain functions; Prefect lives in `flows`."""
