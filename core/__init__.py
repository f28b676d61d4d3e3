"""What every other package shares: errors, settings, logs, addresses."""
