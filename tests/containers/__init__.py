"""prod-run in real containers."""
