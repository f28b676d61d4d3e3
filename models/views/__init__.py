"""The views by subject: what each says stands in `docs/monitoring.md`; `models/monitoring.py` creates them."""
