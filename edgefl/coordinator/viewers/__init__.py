"""What viewers are shown of devices and rounds, and when."""
