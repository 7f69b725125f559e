"""The benchmark: `python -m tests.bench` sets prod-run beside its peers."""
