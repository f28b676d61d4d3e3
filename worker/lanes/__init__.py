"""The lanes, one file each: what a worker claims, does and records."""
