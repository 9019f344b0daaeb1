"""Show stores to people: report, coverage, notebook, terminal.

In: an open ``Store``. Out: HTML, pictures, tables, text. Never imports ``convert`` or torch; ``store`` opens it on demand.
Read first: ``report.write_report``.
"""
