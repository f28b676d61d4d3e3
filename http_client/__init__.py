"""The HTTP client that everything here calls with: checked peers, bounded bodies, deadlines."""
