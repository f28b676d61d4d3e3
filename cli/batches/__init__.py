"""The commands about batches and their edits."""
