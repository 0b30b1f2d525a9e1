"""What a precision costs and gains for one model on this machine: `enginesmith accuracy`.

candidates.py  which precisions are compared
samples.py     the data that they are compared on
trials.py      the work: prepare, compare with the FP32 model, build, with its progress
rows.py        one precision's figures
report.py      the table and the JSON document
plots.py       the pictures; svg.py draws them
page.py        the HTML report, one file without anything from elsewhere
"""
