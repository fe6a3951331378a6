"""One stack serves all of these tests, but for those that need one of their own."""
