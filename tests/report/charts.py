"""The data of a page's charts, by way of its browser."""


def series(browser, plot, name):
    """Return (steps, values) of a plot's series, as plotly holds it."""
    find = "const t = document.getElementById(arguments[0]).data.find(t => t.name === arguments[1]); return [t.x, t.y]"
    return browser.execute_script(find, f"plot-{plot}", name)
