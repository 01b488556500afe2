"""The report that people read: report.json → ``content``, what it says → ``markdown`` and ``page``, how it is written.

``document`` has the words for what a report is made of, ``grids`` the numbers, ``plots`` the pictures.
"""
