"""Where images are put, whole and durably."""
