"""The domain: what exists in darkroom and what may happen to it."""
