"""How lines look, and how they leave."""
