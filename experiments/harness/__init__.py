"""What every script shares: flags, style, records."""
