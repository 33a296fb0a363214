"""The frame of all HTML pages: a page is one file and loads nothing from elsewhere."""

PAGE_STYLE = """
:root { color-scheme: light dark; --line: rgba(128,128,128,.25); --soft: rgba(128,128,128,.08);
  --dim: #6b7280;
  --paper: #fff; --ink: #111318; }
@media (prefers-color-scheme: dark) { :root { --dim: #9ca3af; --paper: #111318; --ink: #e5e7eb; } }
body { background: var(--paper); color: var(--ink); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto;
  padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 15px; font-weight: 600; margin: 0 0 2px; }
.sub { color: var(--dim); margin: 2px 0 20px; }
.bar { height: 6px; border-radius: 3px; background: var(--line); margin-bottom: 22px;
  overflow: hidden; }
.bar div { height: 100%; background: #3b82f6; }
.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin-bottom: 18px; }
.figure { background: var(--soft); border-radius: 10px; padding: 10px 14px; }
.figure b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.figure span { color: var(--dim); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(2, 1fr); gap: 14px; }
.plot { border: 1px solid var(--line); border-radius: 10px; padding: 12px 12px 2px; min-width: 0; }
.plot.wide { grid-column: 1 / -1; } .note { color: var(--dim); font-size: 13px; font-weight: 400; }
@media (max-width: 760px) { .plots { grid-template-columns: 1fr; }
  .figures { grid-template-columns: 1fr 1fr; } }
.plot svg text { fill: var(--dim) !important; }
.plot svg .hoverlayer text { fill: var(--ink) !important; }
.plot .hoverlayer .legend rect.bg { fill: var(--paper) !important; stroke: var(--line) !important; }
.plot .spikeline { stroke: var(--line) !important; stroke-width: 1px !important;
  stroke-dasharray: none !important; }
details { margin-top: 22px; border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px;
  }
summary { cursor: pointer; font-weight: 600; }
table { border-collapse: collapse; margin-top: 8px; font-size: 13px; }
td { padding: 2px 18px 2px 0; vertical-align: top; font-family: ui-monospace, monospace;
  overflow-wrap: anywhere; }
"""


def page(title: str, body: str, script: str = "") -> str:
    """Return a whole page; all arguments are HTML, and `script` is put into the head."""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{PAGE_STYLE}</style>{script}</head><body>
{body}</body></html>"""
