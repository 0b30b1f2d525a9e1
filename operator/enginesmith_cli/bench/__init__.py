"""Finds settings for a server on this machine: `enginesmith bench`.

wanted.py     what a user asks for
settings.py   a candidate: fields of `serving` and `backendOptions` that replace the document's
candidates.py which candidates there are for a machine and a backend
search.py     which of them are measured, and which one is recommended
trials.py     the measurements of one command, with their progress
measure.py    one candidate: a server, client processes, the rates of both
client.py     a client process
server.py     a server process that ends with the command
report.py     the table, the JSON document and the recommendation
plot.py       the picture
"""
