"""prod-run under a real systemd."""
