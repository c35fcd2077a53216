"""Analysis of trained networks: from weights and records of training to numbers, figures and reports.

`findings.analyze` computes everything for one run, with NumPy and SciPy. `figures` draws it with matplotlib, `report`
combines the figures to an HTML page. `study_summary` does the same for the trials of a whole study. Section, figure and
equation numbers are those of the paper. Import from the modules; the package itself imports nothing, so that `import
miiii_search` stays fast.
"""
