"""Networks that no library has, and a shell for those one has."""
