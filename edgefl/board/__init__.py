"""Board: what an operator sees of a federation in a browser. Pure views, the page, and a run as one file.

Nothing here opens a socket or is imported on a device; the server is edgefl_broker's (dashboard.py).
"""
