"""What the other packages ask of the database, by subject. What moves states is in `models/transitions/`."""
