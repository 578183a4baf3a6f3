"""The console: upload, watch, understand, repair and query the lakehouse in a browser.

It is a client of AWS's ordinary APIs and of nothing else, so that it works on a deployed
environment as on the AWS that `local` plays.

    places.py      where an environment's things lie
    athena.py      SQL through Athena, its errors, literals
    data.py        all that the pages ask: queries, run records, histories; no page
    operations.py  what changes something: uploads, executions, plans
    guard.py       who may talk to the server: this machine's browser, from the console's own pages
    look.py        what all pages look like and are made of
    pages/         a module for each page
    app.py         the server
"""

import tools  # noqa: F401  # puts what is deployed on Python's path
