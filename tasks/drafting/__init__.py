"""A first params.yaml for a person's own data: the file is looked at, and every value that follows from it is filled in."""
