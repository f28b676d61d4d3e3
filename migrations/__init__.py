"""The Alembic ladder; configured in pyproject.toml, run by `darkroom migrate`."""
