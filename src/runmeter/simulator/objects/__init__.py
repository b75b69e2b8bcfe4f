"""Objects of the simulated API, in the form in which they are sent."""
