"""A Flask application that verifies, records and answers. It calls nobody but the key set's URL."""
