"""A small emotional corpus that espeak-ng speaks, so that the method runs without a network."""
