"""The stack on this machine: `up` and `demo`."""
