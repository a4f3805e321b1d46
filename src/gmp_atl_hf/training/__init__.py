"""One trainer for the three trainings of the method."""
