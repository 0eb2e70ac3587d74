"""The command line `edgefl`: main.py has the parser, each command a file of its own."""
