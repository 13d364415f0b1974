"""What several figures compute."""
