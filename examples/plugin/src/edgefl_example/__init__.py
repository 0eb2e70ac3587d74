"""A plug-in for EdgeFL: one file for each part."""
