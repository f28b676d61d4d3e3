"""One module for each row of docs/performance.md: darkroom beside its peers, by turns, in one run."""
