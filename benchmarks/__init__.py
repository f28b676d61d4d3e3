"""Measured promises: runs that users of darkroom can repeat on their own machine."""
