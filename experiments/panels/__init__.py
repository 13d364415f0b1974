"""What draws: reads summaries and records only."""
