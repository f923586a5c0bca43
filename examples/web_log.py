"""What a web server's access log says (Common and Combined Log Format): several results of one run.

    p2premap run examples/web_log.py access.log* -o report/

`sets` names the results: requests a page, errors a page, and bytes an hour. Each has part files of its own.
Packed logs (access.log.2.gz) are read as they are.
"""

import re

LINE = re.compile(r'\S+ \S+ \S+ \[(\d+)/(\w+)/(\d+):(\d+):[^]]*\] "(?:[A-Z]+ )?(\S*)[^"]*" (\d{3}) (\d+|-)')

errors = "replace"
sets = ["pages", "errors", "hours"]


def map(key, line):
    found = LINE.match(line)
    if found is None:
        return
    day, month, year, hour, path, status, size = found.groups()
    page = path.partition("?")[0]
    yield "pages", page, 1
    if status >= "400":
        yield "errors", f"{status} {page}", 1
    if size != "-":
        yield "hours", f"{year}-{month}-{day} {hour}h", int(size)


def combine(name, key, values):
    return sum(values)


def reduce(name, key, values):
    return sum(values)
