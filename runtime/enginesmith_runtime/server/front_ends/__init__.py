"""Processes that take requests off the wire for the one that holds the engines; docs/adr/0015 says what for.

link.py         one connection between the two, for one call at a time
forwarding.py   in a front end: the methods of the other process
calls.py        in the process with the engines: the calls that come by links
transport.py    in the process with the engines: the front ends, as one transport
settings.py     what a front end receives at its start
"""
