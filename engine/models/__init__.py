"""Models: their names, and the dates on which they are shut down."""
