"""Command mode beside tini and dumb-init: one table of what an init is documented to do."""
