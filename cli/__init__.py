"""The `darkroom` command and the local stack."""
