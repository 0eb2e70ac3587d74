"""The model: whether it may be committed, and what of it is retained on the MQTT broker."""
