"""The process that init sees: it decides, forks nothing of its own, and never imports the app."""
