"""Reports: tables, figures and logs, from rows alone."""
