"""Checks: whether machine, configuration, data and broker can do their part.

They are made before a daemon runs, or beside one that does.

A check is a function in a visible table. The check.py of each daemon has one, made of the checks here and of its own;
doctor.py and viewer.py have those of `edgefl doctor`. A check joins no round, publishes nothing that is retained on a
topic that a daemon uses, and never takes the MQTT client id of a daemon that runs. A daemon imports this package only
when it is asked to check.
"""
