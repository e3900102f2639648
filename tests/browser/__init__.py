"""What only a browser shows. A package, so that the browser ends when its last test has ended."""
