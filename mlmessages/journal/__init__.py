"""What is written down before and after each request, so that a crash at any point loses nothing."""
