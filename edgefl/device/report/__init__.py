"""A device's update on its way, until its receipt."""
