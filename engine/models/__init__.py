"""Models: what their names say, and when they are shut down."""
