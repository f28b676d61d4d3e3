"""The commands that ask the provider itself."""
