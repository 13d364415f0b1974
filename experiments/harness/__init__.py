"""What every script shares: flags, presets, figure style, records."""
