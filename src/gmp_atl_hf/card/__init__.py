"""A run's model, described: its card and the files that go to the Hub with it."""
