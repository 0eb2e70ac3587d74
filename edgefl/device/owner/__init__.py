"""What a device's owner lets a federation do, and how much of it."""
