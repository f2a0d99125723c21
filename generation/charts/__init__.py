"""Charts as SVG that the server makes: no script draws them. See `plots.py`; `plot.html` and
`charts.css` are what they look like, and each has its numbers as a table.
"""
