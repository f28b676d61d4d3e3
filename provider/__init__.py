"""Everything that speaks to fal."""
