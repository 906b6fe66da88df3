"""Training of a whole network from random weights."""
