"""What the observer process runs: it reads what the others print, and writes it where logs go."""
