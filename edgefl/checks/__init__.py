"""Checks: whether machine, configuration, data and broker can do their part.

They are made before a daemon runs, or beside one that does.

A check is a function in a visible table: edgefl_agent/check.py, edgefl_broker/check.py, and cli/doctor.py each have
one, made of the checks here and of their own. A check joins no round, publishes nothing that is retained on a topic
that a daemon uses, and never takes the MQTT client id of a daemon that runs. A daemon imports this package only when it
is asked to check.
"""
