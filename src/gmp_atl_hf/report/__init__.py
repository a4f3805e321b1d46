"""From numbers to pages and pictures."""
