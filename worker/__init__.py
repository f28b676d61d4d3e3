"""Celery workers that claim due rows, do the work and record the outcome."""
