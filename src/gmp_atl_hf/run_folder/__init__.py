"""What a run's folder looks like: names, step folders, the lock, and the reading of finished runs."""
