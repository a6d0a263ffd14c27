"""What is left of each method on them, and the page that says it."""
