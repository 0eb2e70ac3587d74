"""`edgefl new`: from data, a model and a broker's address to the files of a federation that works."""
