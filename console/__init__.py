"""The console: upload, watch, understand, repair and query the lakehouse in a browser.

It uses AWS's ordinary APIs and nothing else. So it works on a deployed environment and on the AWS
that `local` emulates.

    athena.py      SQL through Athena, its errors, literals
    data/          the queries of the pages by subject: runs, files, rejects, tables; no page
    operations.py  uploads, executions and plans, and whether they are allowed
    work.py        runs work in a thread, and turns its errors into sentences
    guard.py       admits only this machine's browser, from the console's own pages
    look.py        layout, tables, bars and texts of all pages
    pages/         a module for each page, the drop zone and the dialogs
    drop.js        reads dropped and chosen folders in the browser
    app.py         the server
"""

import client  # noqa: F401  # puts the deployed code on Python's path
