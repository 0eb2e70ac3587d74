"""How a round's model comes to a device, and what the device keeps of it."""
