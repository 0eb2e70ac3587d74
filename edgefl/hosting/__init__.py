"""What both daemons are built from: a machine on a link, configuration files, databases, signals and exit codes."""
