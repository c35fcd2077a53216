"""Reports: the figures of a run, a comparison or a study, and the HTML page that shows them.

`run_report`, `comparison_report` and `study_report` list the figures with their captions and fill the page. `rendering`
draws the figures, `page` renders the page, and `files` writes both into a folder.
"""
