"""The words: what exists in darkroom and what may happen to it. Imports nothing of the other rooms."""
