"""What a device tells of the columns of its examples."""
