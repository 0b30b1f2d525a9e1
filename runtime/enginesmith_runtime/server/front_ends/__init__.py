"""Processes that receive requests for the process with the engines; docs/adr/0015 gives the reasons.

link.py         one connection between the two, for one call at a time
forwarding.py   in a front end: the methods of the process with the engines
calls.py        in the process with the engines: the calls that arrive over links
transport.py    in the process with the engines: the front ends, as one transport
settings.py     what a front end receives at its start
"""
