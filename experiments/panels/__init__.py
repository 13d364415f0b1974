"""What the figures draw, from summaries and records only."""
