"""What the charts of a page hold, by way of its browser."""


def series(browser, plot, name):
    """What a plot's series shows, as plotly holds it: (steps, values)."""
    find = "const t = document.getElementById(arguments[0]).data.find(t => t.name === arguments[1]); return [t.x, t.y]"
    return browser.execute_script(find, f"plot-{plot}", name)
